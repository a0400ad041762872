//! Which instructions mean something here, by their bytes.

/// Most regions: their numbers are below.
pub const MAX_REGIONS: usize = 64;
/// `nop dword ptr [rax + rax + disp32]`: no operation on any x86-64 processor. It reads nothing.
const NO_OPERATION: [u8; 4] = [0x0f, 0x1f, 0x84, 0x00];
/// Last bytes of a displacement that is a mark.
const MARK: [u8; 2] = [0x0a, 0x70];
/// Which of the two it is.
const BEGIN: u8 = 0xbe;
const END: u8 = 0xed;

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The region of this number begins.
    Begin(usize),
    /// It ends.
    End(usize),
}

/// The mark that an instruction is, if it is one.
pub fn mark(code: &[u8]) -> Option<Mark> {
    let [number, way, mark @ ..] = code.strip_prefix(&NO_OPERATION)? else {
        return None;
    };
    let number = usize::from(*number);
    if mark != MARK || number >= MAX_REGIONS {
        return None;
    }
    match *way {
        BEGIN => Some(Mark::Begin(number)),
        END => Some(Mark::End(number)),
        _ => None,
    }
}

/// Whether an instruction reads and writes memory in one step that no other core sees the middle of.
pub fn is_locked(code: &[u8]) -> bool {
    for byte in code {
        match byte {
            0xf0 => return true,
            // Operand and address size, segments, repetition, REX.
            0x66 | 0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf2 | 0xf3 | 0x40..=0x4f => {}
            // `xchg` with memory locks by itself; with a register it touches no memory.
            0x86 | 0x87 => return true,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_other_instructions() {
        let code = |number, way| [0x0f, 0x1f, 0x84, 0x00, number, way, 0x0a, 0x70];
        assert_eq!(mark(&code(5, BEGIN)), Some(Mark::Begin(5)));
        assert_eq!(mark(&code(63, END)), Some(Mark::End(63)));
        assert_eq!(mark(&code(64, END)), None);
        assert_eq!(mark(&code(1, 0)), None);
        // What assemblers fill gaps with.
        assert_eq!(mark(&[0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0]), None);
        assert_eq!(mark(&[0x0f, 0x1f, 0x00]), None);
        assert_eq!(mark(&[0x90]), None);
    }

    #[test]
    fn locked_instructions_are_known() {
        // lock cmpxchg [rdi], rsi; xchg [rdi], rax; lock inc dword ptr [rdi] with a segment.
        assert!(is_locked(&[0xf0, 0x48, 0x0f, 0xb1, 0x37]));
        assert!(is_locked(&[0x48, 0x87, 0x07]));
        assert!(is_locked(&[0x64, 0xf0, 0xff, 0x07]));
        // mov [rdi], rax; add [rdi], rax; rep stosb.
        assert!(!is_locked(&[0x48, 0x89, 0x07]));
        assert!(!is_locked(&[0x48, 0x01, 0x07]));
        assert!(!is_locked(&[0xf3, 0xaa]));
    }
}
