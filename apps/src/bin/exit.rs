//! Exits with a status: `exit STATUS`.
#![no_std]
#![no_main]

rt::entry!(main);

fn main() -> i32 {
    match rt::startup().arguments().nth(1).and_then(|word| word.parse().ok()) {
        Some(status) => status,
        None => {
            rt::println!("usage: exit STATUS");
            2
        }
    }
}
