//! Numbers, as the page has them: small, and quick to read.

use std::collections::HashMap;

/// Declares the columns with their names.
macro_rules! columns {
    ($($column:ident = $name:literal,)*) => {
        /// A column.
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs, reason = "the table of `page` says what each is")]
        pub enum Column {
            $($column),*
        }
        const NAMES: &[&str] = &[$($name),*];
    };
}

columns! {
    Rows = "rows",
    Begin = "begin",
    Time = "time",
    What = "what",
    Text = "text",
    Words = "words",
    MessageSent = "message_sent",
    MessageWire = "message_wire",
    MessageFrom = "message_from",
    MessageTo = "message_to",
    MessageSender = "message_sender",
    MessageReceiver = "message_receiver",
    MessageKind = "message_kind",
    MessageFlowHigh = "message_flow_high",
    MessageFlowLow = "message_flow_low",
    MessageWordHigh = "message_word_high",
    MessageWordLow = "message_word_low",
    OperationBegin = "operation_begin",
    OperationTime = "operation_time",
    OperationCore = "operation_core",
    OperationDispatcher = "operation_dispatcher",
    OperationKind = "operation_kind",
    OperationError = "operation_error",
    OperationFlowHigh = "operation_flow_high",
    OperationFlowLow = "operation_flow_low",
    Chain = "chain",
    HopBegin = "hop_begin",
    HopWay = "hop_way",
    HopStay = "hop_stay",
    HopCore = "hop_core",
    HopDispatcher = "hop_dispatcher",
    HopMessage = "hop_message",
    HopShares = "hop_shares",
}

/// Columns of numbers.
pub struct Columns {
    all: Vec<Vec<u8>>,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            all: vec![Vec::new(); NAMES.len()],
        }
    }
}

impl Columns {
    /// Appends a number to a column, unsigned LEB128.
    pub fn put(&mut self, column: Column, mut value: u64) {
        let bytes = &mut self.all[column as usize];
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
    }

    /// Appends a number of 64 bits to two columns, because a script's numbers have 53.
    pub fn put_halves(&mut self, [high, low]: [Column; 2], value: u64) {
        self.put(high, value >> 32);
        self.put(low, value & u64::from(u32::MAX));
    }

    /// Names of the columns with their bytes, in their order.
    pub fn index(&self) -> Vec<(&'static str, usize)> {
        let lengths = self.all.iter().map(Vec::len);
        NAMES.iter().copied().zip(lengths).collect()
    }

    /// All of them.
    pub fn bytes(&self) -> Vec<u8> {
        self.all.concat()
    }
}

/// Names, and texts without their numbers, each once.
#[derive(Default)]
pub struct Texts {
    names: Once,
    templates: Once,
}

#[derive(Default)]
struct Once {
    all: Vec<String>,
    place: HashMap<String, usize>,
}

impl Once {
    fn put(&mut self, text: &str) -> usize {
        if let Some(at) = self.place.get(text) {
            return *at;
        }
        self.all.push(text.to_owned());
        self.place.insert(text.to_owned(), self.all.len() - 1);
        self.all.len() - 1
    }
}

impl Texts {
    /// The number of a name.
    pub fn name(&mut self, name: &str) -> usize {
        self.names.put(name)
    }

    /// All names by number.
    pub fn names(&self) -> &[String] {
        &self.names.all
    }

    /// All templates by number: where a number goes there is U+0001 (decimal) or U+0002 (hexadecimal).
    pub fn templates(&self) -> &[String] {
        &self.templates.all
    }

    /// Appends a text: its template, and its numbers.
    pub fn put(&mut self, columns: &mut Columns, text: &str) {
        let (template, words) = apart(text);
        columns.put(Column::Text, self.templates.put(&template) as u64);
        for word in words {
            columns.put(Column::Words, word);
        }
    }
}

/// A text without its numbers, and these.
fn apart(text: &str) -> (String, Vec<u64>) {
    let mut template = String::new();
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if !first.is_ascii_alphanumeric() {
            // What stands for a number cannot be in a text as well.
            template.push(if first < ' ' { ' ' } else { first });
            rest = &rest[first.len_utf8()..];
            continue;
        }
        if let Some(after) = rest.strip_prefix("0x") {
            template.push_str("0x");
            rest = after;
        }
        let end = rest
            .find(|one: char| !one.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let is_plain = word == "0" || !word.starts_with('0');
        let digit = |one: u8| one.is_ascii_digit() || (b'a'..=b'f').contains(&one);
        let has_digit = word.bytes().any(|one| one.is_ascii_digit());
        let decimal = word.parse().ok().filter(|_| is_plain);
        let hexadecimal = (is_plain && has_digit && word.bytes().all(digit))
            .then(|| u64::from_str_radix(word, 16).ok())
            .flatten();
        match (decimal, hexadecimal) {
            (Some(value), _) => {
                template.push('\u{1}');
                words.push(value);
            }
            (None, Some(value)) => {
                template.push('\u{2}');
                words.push(value);
            }
            (None, None) => template.push_str(word),
        }
        rest = after;
    }
    (template, words)
}

/// As text of 64 letters.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for letter in 0..4 {
            if letter <= three.len() {
                text.push(char::from(
                    LETTERS[(bits >> (18 - 6 * letter) & 63) as usize],
                ));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts a text together as the page does.
    fn together((template, words): (String, Vec<u64>)) -> String {
        let mut words = words.into_iter();
        let mut text = String::new();
        for one in template.chars() {
            match one {
                '\u{1}' => text.push_str(&words.next().unwrap_or_default().to_string()),
                '\u{2}' => text.push_str(&format!("{:x}", words.next().unwrap_or_default())),
                one => text.push(one),
            }
        }
        text
    }

    #[test]
    fn texts_come_together_again() {
        for text in [
            "",
            "dispatcher 5 in state 3",
            "0x1f of 0x12 and 0xdead0000beef",
            "007 0 00 1e3 be cafe 18446744073709551615 99999999999999999999 ffffffffffffffff",
            "at ffffa00000000000, 12 Größe ×3 1st a1b2 0x 0xzz",
        ] {
            assert_eq!(together(apart(text)), text);
        }
    }

    #[test]
    fn numbers_do_not_make_templates() {
        assert_eq!(apart("core 1, vector 2").0, apart("core 77, vector 901").0);
    }

    #[test]
    fn base64_is_that_of_others() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
