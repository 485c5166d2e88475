//! The machine's local time.
#![allow(unsafe_code)]

use std::time::{SystemTime, UNIX_EPOCH};

/// Tells how many seconds local time is ahead of UTC at this moment, summer time included.
///
/// It is what nft(8) adds to hours when it lists rules, and takes away when it loads them. Where there is no time zone, it is 0.
///
/// # Units
///
/// Seconds, negative west of Greenwich.
///
/// # References
///
/// localtime_r(3), `tm_gmtoff`.
pub fn ahead() -> i32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now: libc::time_t = now.try_into().unwrap_or_default();
    // SAFETY: a `tm` of zeros is a valid one: its fields are numbers, and a pointer that may be null.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals that outlive the call, which keeps neither.
    let done = unsafe { libc::localtime_r(&raw const now, &raw mut local) };
    if done.is_null() { 0 } else { local.tm_gmtoff.try_into().unwrap_or_default() }
}
