//! Writes a cpio archive ("newc"), which Linux unpacks as its first file system.

/// What a file is, besides its name.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'bytes> {
    /// A folder.
    Folder,
    /// An executable with these bytes.
    Executable(&'bytes [u8]),
    /// A character device of this major and minor number.
    Device(u32, u32),
}

/// An archive of these files, each a path without a leading slash. Folders stand before what lies
/// in them. The same files give the same bytes.
pub fn archive(files: &[(&str, Kind<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, (path, kind)) in files.iter().enumerate() {
        let (mode, data, device): (u32, &[u8], _) = match kind {
            Kind::Folder => (0o040_755, &[], (0, 0)),
            Kind::Executable(data) => (0o100_755, data, (0, 0)),
            Kind::Device(major, minor) => (0o020_600, &[], (*major, *minor)),
        };
        put(&mut bytes, index as u32 + 1, path, mode, data, device);
    }
    put(&mut bytes, 0, "TRAILER!!!", 0, &[], (0, 0));
    bytes
}

fn put(to: &mut Vec<u8>, inode: u32, path: &str, mode: u32, data: &[u8], device: (u32, u32)) {
    // Inode, mode, user, group, links, time, size, the file system's device, the file's own,
    // length of the name with its 0, and a sum that this format leaves 0.
    let (size, name) = (data.len() as u32, path.len() as u32 + 1);
    let fields = [
        inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name, 0,
    ];
    to.extend(b"070701");
    for field in fields {
        to.extend(format!("{field:08x}").bytes());
    }
    to.extend(path.bytes());
    to.push(0);
    pad(to);
    to.extend(data);
    pad(to);
}

/// Header with name, and data, each end at a multiple of 4.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stand_at_multiples_of_four_with_their_fields() {
        let files = [
            ("dev", Kind::Folder),
            ("dev/console", Kind::Device(5, 1)),
            ("init", Kind::Executable(b"hello")),
        ];
        let bytes = archive(&files);
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            assert_eq!(&rest[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&rest[6 + 8 * index..][..8]).unwrap();
                u32::from_str_radix(text, 16).unwrap() as usize
            };
            let name_end = 110 + field(11);
            assert_eq!(rest[name_end - 1], 0);
            let name = std::str::from_utf8(&rest[110..name_end - 1]).unwrap();
            let data = name_end.next_multiple_of(4);
            let end = data + field(6);
            let contents = rest[data..end].to_vec();
            found.push((name.to_owned(), field(1), contents, (field(9), field(10))));
            rest = &rest[end.next_multiple_of(4)..];
        }
        let expected = [
            ("dev", 0o040_755, &b""[..], (0, 0)),
            ("dev/console", 0o020_600, b"", (5, 1)),
            ("init", 0o100_755, b"hello", (0, 0)),
            ("TRAILER!!!", 0, b"", (0, 0)),
        ];
        let expected = expected
            .map(|(name, mode, data, device)| (name.to_owned(), mode, data.to_vec(), device));
        assert_eq!(found, expected);
    }
}
