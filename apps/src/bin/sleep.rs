//! Sleeps: `sleep SECONDS`.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

rt::entry!(main);

fn main() -> i32 {
    let word = rt::startup().arguments().nth(1);
    let Some(seconds) = word.and_then(|word| word.parse::<u64>().ok()) else {
        rt::println!("usage: sleep SECONDS");
        return 2;
    };
    rt::println!("sleeping for {seconds} s");
    rt::clock::sleep_ns(seconds.saturating_mul(1_000_000_000));
    0
}
