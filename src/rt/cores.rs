//! The cores that this process may use, and randomness from the kernel.

use std::io;

use uuid::Uuid;

/// Numbers of the cores that the process may run on (its affinity mask: a container's or `taskset`'s), ascending, never empty.
pub fn allowed_cores() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills at most the size that is given.
    let returned = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    assert_eq!(returned, 0, "cannot read the affinity mask: {}", io::Error::last_os_error());
    // SAFETY: every index is below CPU_SETSIZE.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// The mask with exactly these cores.
pub(super) fn core_set(cores: &[usize]) -> libc::cpu_set_t {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
        // SAFETY: the index is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    set
}

/// Lets the calling thread run on these cores only. Cores that do not exist are an error.
pub(super) fn pin_to(cores: &[usize]) -> io::Result<()> {
    let set = core_set(cores);
    // SAFETY: the set is valid for the size that is given.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets the calling thread's timed sleeps end on time: by default the kernel lets them take 50 us longer to wake a core less often.
pub(super) fn wake_on_time() {
    // SAFETY: the call takes a number and touches no memory. It cannot fail for a number above 0.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Fills `bytes` from the kernel's generator (fit for keys and ids).
pub fn random_bytes(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: `rest` is valid for its length.
        let returned = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        if returned < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "the kernel gives no random bytes: {error}");
            continue;
        }
        filled += returned as usize;
    }
}

/// A random UUID as Kafka makes them for topics and directories: version 4, and never one whose text form starts with a dash, which command lines would take for an option (KIP-516).
pub fn random_uuid() -> Uuid {
    loop {
        let mut bytes = [0; 16];
        random_bytes(&mut bytes);
        let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid();
        // Base64url writes the top six bits of the first byte first; 62 is its dash.
        if uuid.as_bytes()[0] >> 2 != 62 && !uuid.is_nil() {
            return uuid;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_core_and_it_can_be_pinned_to() {
        let cores = allowed_cores();
        assert!(!cores.is_empty());
        std::thread::spawn(move || {
            pin_to(&cores[..1]).unwrap();
            assert_eq!(allowed_cores(), cores[..1]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn uuids_are_version_4_and_differ() {
        let (one, other) = (random_uuid(), random_uuid());
        assert_ne!(one, other);
        assert_eq!(one.get_version_num(), 4);
    }
}
