//! Preflight of the kernel and of this process's limits: version, io_uring and who forbids it, operations, locked memory, descriptors.

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode};

use super::{Findings, Plan, Problem};

/// Since 6.1 rings can defer their work to the thread that asks (DEFER_TASKRUN), on which our latency rests.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// What glommio's executors ask for before they start, if not privileged.
const LOCKED_MEMORY_BYTES_MIN: u64 = 512 << 10;

/// The operations that `rt::ring` uses.
const OPERATIONS: [(u8, &str); 6] = [
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::Fsync::CODE, "FSYNC"),
    (opcode::Fadvise::CODE, "FADVISE"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

pub fn check(plan: &Plan, findings: &mut Findings) {
    let release = read("/proc/sys/kernel/osrelease");
    match parse_release(&release) {
        // An unknown notation is no reason to refuse: what matters is tried below.
        Some(version) if version < KERNEL_MIN => {
            let (major, minor) = KERNEL_MIN;
            findings.problem(
                format!("this kernel is Linux {release}; {major}.{minor} or later is needed"),
                format!("boot Linux {major}.{minor} or later (Debian 12, Ubuntu 24.04 and RHEL 10 have one)"),
            );
            return;
        }
        _ => findings.problems.extend(check_ring()),
    }
    check_locked_memory(findings);
    check_descriptors(plan, findings);
}

/// What works but will not last: too few descriptors for many partitions.
pub fn warnings(plan: &Plan) -> Vec<String> {
    let (limit, _) = raise_limit(libc::RLIMIT_NOFILE);
    let wanted = plan.descriptors_for_10_000_partitions;
    if limit >= wanted {
        return Vec::new();
    }
    vec![format!(
        "this process may open {limit} files; 10,000 partitions need about {wanted}. Raise the hard limit: LimitNOFILE={wanted} in a systemd unit, --ulimit nofile={wanted} for a container, or `ulimit -Hn`"
    )]
}

fn check_ring() -> Option<Problem> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
    // Entered once, empty: a filter may let a ring be made that it lets nobody use.
    let entered = builder.build(4).and_then(|ring: IoUring| ring.submit().map(|_| ring));
    let ring = match entered {
        Ok(ring) => ring,
        Err(error) => {
            return Some(explain_ring_error(&error, read("/proc/sys/kernel/io_uring_disabled").parse().unwrap_or(0), is_filtered()));
        }
    };
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe);
    let missing: Vec<&str> = OPERATIONS.iter().filter(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| *name).collect();
    let lacks_features = !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop();
    (probed.is_err() || !missing.is_empty() || lacks_features).then(|| Problem {
        cause: format!(
            "this kernel's io_uring lacks operations that are needed ({})",
            if missing.is_empty() { "EXT_ARG, NODROP or PROBE".to_string() } else { missing.join(", ") }
        ),
        remedy: "run on a mainline kernel of 6.1 or later, or lift the restriction of the sandbox that hides these operations".to_string(),
    })
}

/// Who forbids io_uring, by the error, the sysctl `kernel.io_uring_disabled` and whether a seccomp filter is on.
fn explain_ring_error(error: &io::Error, disabled: u32, is_filtered: bool) -> Problem {
    let problem =
        |cause: &str, remedy: &str| Problem { cause: format!("io_uring is not available: {cause} ({error})"), remedy: remedy.to_string() };
    match (error.raw_os_error(), disabled) {
        (Some(libc::EPERM), 2) => problem(
            "the sysctl kernel.io_uring_disabled is 2, which forbids it to everyone",
            "sysctl -w kernel.io_uring_disabled=0 on the host, and in /etc/sysctl.d to keep it",
        ),
        (Some(libc::EPERM), 1) => problem(
            "the sysctl kernel.io_uring_disabled is 1, which forbids it to unprivileged processes outside the group kernel.io_uring_group",
            "sysctl -w kernel.io_uring_disabled=0 on the host, or put the broker's group id into kernel.io_uring_group",
        ),
        (Some(libc::EPERM | libc::EACCES | libc::ENOSYS), _) if is_filtered => problem(
            "a seccomp filter forbids it, as container engines set by default",
            "start the container with a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register (docker run --security-opt seccomp=profile.json; in Kubernetes securityContext.seccompProfile)",
        ),
        (Some(libc::EPERM | libc::EACCES), _) => problem(
            "a security module forbids it",
            "allow io_uring in the policy that confines this process (SELinux, AppArmor or the like)",
        ),
        (Some(libc::ENOSYS), _) => problem("the kernel was built without it", "run on a kernel with CONFIG_IO_URING=y"),
        (Some(libc::EINVAL), _) => problem("the kernel does not know the kind of ring that is needed", "run on Linux 6.1 or later"),
        (Some(libc::ENOMEM), _) => problem(
            "the kernel gives no memory for it",
            "raise the memory limit of the container or service, or its limit of locked memory",
        ),
        (Some(libc::EMFILE | libc::ENFILE), _) => problem("no file can be opened any more", "raise the limit of open files (ulimit -n)"),
        _ => problem("the kernel refuses it", "see the kernel's log"),
    }
}

fn check_locked_memory(findings: &mut Findings) {
    // SAFETY: takes and touches nothing.
    let is_root = unsafe { libc::geteuid() } == 0;
    let (limit, hard) = raise_limit(libc::RLIMIT_MEMLOCK);
    if limit < LOCKED_MEMORY_BYTES_MIN && !is_root {
        findings.problem(
            format!("this process may lock {} KiB of memory (hard limit {} KiB); {} KiB are needed", limit >> 10, hard >> 10, LOCKED_MEMORY_BYTES_MIN >> 10),
            "raise the hard limit: LimitMEMLOCK=8M in a systemd unit, --ulimit memlock=8388608 for a container, or `memlock` in /etc/security/limits.conf",
        );
    }
}

fn check_descriptors(plan: &Plan, findings: &mut Findings) {
    let (limit, _) = raise_limit(libc::RLIMIT_NOFILE);
    if limit < plan.descriptors_min {
        findings.problem(
            format!("this process may open {limit} files; {} are needed for a start", plan.descriptors_min),
            format!(
                "raise the hard limit: LimitNOFILE={0} in a systemd unit, --ulimit nofile={0} for a container, or `ulimit -Hn`",
                plan.descriptors_for_10_000_partitions.max(plan.descriptors_min)
            ),
        );
    }
}

/// Raises the soft limit to the hard one. Returns both as they are then.
fn raise_limit(resource: libc::__rlimit_resource_t) -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing.
    let known = unsafe { libc::getrlimit(resource, &mut limit) } == 0;
    assert!(known, "cannot read a limit of this process: {}", io::Error::last_os_error());
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is valid for reading. Refused, the limit stays as it is.
    if limit.rlim_cur < limit.rlim_max && unsafe { libc::setrlimit(resource, &raised) } == 0 {
        return (raised.rlim_cur, raised.rlim_max);
    }
    (limit.rlim_cur, limit.rlim_max)
}

/// Major and minor of `6.1.0-18-amd64`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether a seccomp filter is on for this thread.
fn is_filtered() -> bool {
    fs::read_to_string("/proc/thread-self/status")
        .unwrap_or_default()
        .lines()
        .any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(parse_release("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_release("5.15-rc1"), Some((5, 15)));
        assert_eq!(parse_release("next"), None);
    }

    /// This machine runs the tests, so its ring is fine; limits can be raised to where they are.
    #[test]
    fn this_machine_has_a_ring() {
        assert_eq!(check_ring(), None);
        let (limit, hard) = raise_limit(libc::RLIMIT_NOFILE);
        assert_eq!(limit, hard);
    }

    /// Each way to forbid io_uring is told from the others.
    #[test]
    fn who_forbids_the_ring_is_named() {
        let cause = |errno, disabled, is_filtered| explain_ring_error(&io::Error::from_raw_os_error(errno), disabled, is_filtered).cause;
        assert!(cause(libc::EPERM, 2, true).contains("io_uring_disabled is 2"));
        assert!(cause(libc::EPERM, 1, false).contains("io_uring_disabled is 1"));
        assert!(cause(libc::EPERM, 0, true).contains("seccomp"));
        assert!(cause(libc::ENOSYS, 0, true).contains("seccomp"));
        assert!(cause(libc::ENOSYS, 0, false).contains("built without"));
        assert!(cause(libc::EPERM, 0, false).contains("security module"));
    }

    /// A ring that can be made and not be entered is of no use. The filter holds for the thread that asked for it, which ends with the test.
    #[test]
    fn a_filter_that_forbids_to_enter_the_ring_is_named() {
        let found = std::thread::spawn(|| {
            forbid(libc::SYS_io_uring_enter);
            check_ring()
        });
        let cause = found.join().unwrap().expect("a problem").cause;
        assert!(cause.contains("seccomp") && cause.contains("os error 1"), "{cause}");
    }

    /// From now on this thread's calls of that number fail with EPERM.
    fn forbid(call: libc::c_long) {
        let step = |code: u32, k: u32, jump_if_false: u8| libc::sock_filter { code: code as u16, jt: 0, jf: jump_if_false, k };
        let filter = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 1),
            step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0),
            step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: takes numbers only.
        let gives_up_privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: the kernel copies the program during the call, and does not write to it.
        let is_set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
        assert_eq!((gives_up_privileges, is_set), (0, 0), "{}", io::Error::last_os_error());
    }
}
