//! Exits with a status: `exit STATUS`.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

rt::entry!(main);

fn main() -> i32 {
    let word = rt::startup().arguments().nth(1);
    match word.and_then(|word| word.parse().ok()) {
        Some(status) => status,
        None => {
            rt::println!("usage: exit STATUS");
            2
        }
    }
}
