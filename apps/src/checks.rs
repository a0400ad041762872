//! What a test program counts, and what it says of a check that failed.

use core::fmt::Debug;

/// Counts what was not as it should be.
#[derive(Default)]
pub struct Outcome {
    /// Checks made.
    pub checks: u64,
    /// Checks that failed.
    pub bad: u64,
}

impl Outcome {
    /// Checks that something is as it should be, and says so if not: which program on which core,
    /// what was expected and what was found, numbers in hexadecimal.
    pub fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if found != expected {
            self.fail(
                what,
                format_args!("expected {expected:x?}, found {found:x?}"),
            );
        }
    }

    /// Checks that something is refused with this error.
    pub fn refused<T, E: PartialEq + Debug>(
        &mut self,
        what: &str,
        found: Result<T, E>,
        expected: E,
    ) {
        let found = found.map(|_| "given");
        self.expect(what, &found, &Err(expected));
    }

    /// Counts a check that failed, and says how.
    pub fn fail(&mut self, what: &str, how: core::fmt::Arguments) {
        self.bad += 1;
        let start = rt::startup();
        let name = start.arguments().next().unwrap_or("?");
        rt::println!("{name}: core {}: {what}: {how}", start.core);
    }
}
