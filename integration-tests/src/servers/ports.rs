use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the kernel hands to clients, which could take one while a stopped server has to get it back.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// So many ports of the loopback address that nobody listens on.
pub(super) fn free(count: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time begin far from each other.
    let offset = std::process::id().wrapping_mul(997) % u32::from(COUNT);
    let mut held = Vec::new();
    for _ in 0..COUNT {
        if held.len() == count {
            break;
        }
        let number = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) + offset;
        let port = FIRST + u16::try_from(number % u32::from(COUNT)).expect("it is less than the count");
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|listener| (listener, port)));
    }
    assert_eq!(held.len(), count, "no free ports from {FIRST} on");
    held.into_iter().map(|(_, port)| port).collect()
}
