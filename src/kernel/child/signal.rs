//! Signals: their names, which of them are passed on, and what a new process inherits of them.

use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

use super::Child;
use crate::{Error, ErrorKind, Result};

/// A signal's number.
///
/// # References
/// `signal(7)`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(libc::c_int);

/// The highest number the kernel has, `_NSIG`.
const LAST: libc::c_int = 64;

macro_rules! signals {
    ($($name:ident $constant:ident $text:literal,)*) => {
        impl Signal {
            $(
                #[doc = concat!("`", $text, "`")]
                #[doc(alias = $text)]
                pub const $name: Self = Self(libc::$constant);
            )*

            /// Its name, such as `SIGTERM`; `None` for a real-time signal.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $(libc::$constant => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

signals! {
    HUP SIGHUP "SIGHUP",
    INT SIGINT "SIGINT",
    QUIT SIGQUIT "SIGQUIT",
    ILL SIGILL "SIGILL",
    TRAP SIGTRAP "SIGTRAP",
    ABRT SIGABRT "SIGABRT",
    BUS SIGBUS "SIGBUS",
    FPE SIGFPE "SIGFPE",
    KILL SIGKILL "SIGKILL",
    USR1 SIGUSR1 "SIGUSR1",
    SEGV SIGSEGV "SIGSEGV",
    USR2 SIGUSR2 "SIGUSR2",
    PIPE SIGPIPE "SIGPIPE",
    ALRM SIGALRM "SIGALRM",
    TERM SIGTERM "SIGTERM",
    CHLD SIGCHLD "SIGCHLD",
    CONT SIGCONT "SIGCONT",
    STOP SIGSTOP "SIGSTOP",
    TSTP SIGTSTP "SIGTSTP",
    TTIN SIGTTIN "SIGTTIN",
    TTOU SIGTTOU "SIGTTOU",
    URG SIGURG "SIGURG",
    XCPU SIGXCPU "SIGXCPU",
    XFSZ SIGXFSZ "SIGXFSZ",
    VTALRM SIGVTALRM "SIGVTALRM",
    PROF SIGPROF "SIGPROF",
    WINCH SIGWINCH "SIGWINCH",
    IO SIGIO "SIGIO",
    PWR SIGPWR "SIGPWR",
    SYS SIGSYS "SIGSYS",
}

impl Signal {
    /// Takes a number from 1 to 64.
    pub fn from_raw(number: i32) -> Option<Self> {
        (1..=LAST).contains(&number).then_some(Self(number))
    }

    /// Gives the number.
    pub fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Says whether a signal with that `si_code` is to be passed on: if a process sent it, or the terminal hung up.
///
/// What keys of the terminal send comes from the kernel and goes to the whole foreground process group: the command, which is in it, has it
/// already, and must not get it twice. That the terminal is gone is told to the session's leader alone (SIGHUP, and SIGCONT for who is stopped):
/// where that is this process, nobody else tells the command. Stop signals are the shell's business.
pub(super) fn is_forwarded(signal: libc::c_int, code: libc::c_int) -> bool {
    match code {
        libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL => {
            !matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
        }
        libc::SI_KERNEL => matches!(signal, libc::SIGHUP | libc::SIGCONT),
        _ => false,
    }
}

/// What [`forward_signals`] takes over.
const FORWARDED: [libc::c_int; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGWINCH,
];

/// Where the handler sends to: the supervisor's end of a control socket, or -1.
static TARGET: AtomicI32 = AtomicI32::new(-1);
/// What came while there was nobody to send it to, bit `n - 1` for signal `n`.
static HELD: AtomicU64 = AtomicU64::new(0);
/// How many handlers run just now.
static HANDLING: AtomicUsize = AtomicUsize::new(0);
/// Somebody forwards.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Signals are passed on as long as this lives; then they do again what they did before.
#[derive(Debug)]
#[must_use = "forwarding ends when this is dropped"]
pub struct Forwarding {
    previous: Vec<(libc::c_int, libc::sigaction)>,
    /// Keeps the descriptor in [`TARGET`] from being closed.
    control: Option<Arc<OwnedFd>>,
}

/// Passes SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT and SIGWINCH that a process sends to this one on to the command.
///
/// The same signals from the terminal's keys are swallowed: the command has had them from there, and this process stays to wait for its end. That the
/// terminal hung up is passed on. What
/// this process ignores stays ignored, as under `nohup`. Stop signals are left alone, so that `^Z` stops supervisor and command alike.
/// A signal sent to the whole process group reaches the command twice, once itself and once passed on.
///
/// Handlers that were there before are out of use meanwhile. Until this is called, signals do here what they did before; where they end this
/// process, the command ends with it. Call [`hold_signals`] before the command is started where that must not happen.
///
/// # Errors
/// `Conflict` when signals of this process are being passed on to another child.
pub fn forward_signals(child: &Child) -> Result<Forwarding> {
    let mut forwarding = hold_signals()?;
    forwarding.pass_to(child);
    Ok(forwarding)
}

/// Takes over the signals of [`forward_signals`], and keeps what comes for a command that is yet to be started.
///
/// # Errors
/// `Conflict` when signals of this process are being passed on to another child.
pub fn hold_signals() -> Result<Forwarding> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(Error::new(ErrorKind::Conflict, "signals are being passed on to another child already"));
    }
    HELD.store(0, Ordering::SeqCst);
    let mut forwarding = Forwarding { previous: Vec::with_capacity(FORWARDED.len()), control: None };
    for signal in FORWARDED {
        let before = disposition(signal).filter(|before| before.sa_sigaction != libc::SIG_IGN);
        if let Some(before) = before {
            // SAFETY: zero is a value of every field; the handler is async-signal-safe and has the type that SA_SIGINFO asks for.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = pass_on as *const () as libc::sighandler_t;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
                libc::sigaction(signal, &raw const action, ptr::null_mut());
            }
            forwarding.previous.push((signal, before));
        }
    }
    Ok(forwarding)
}

impl Forwarding {
    /// Passes on what was held, and from here on whatever comes.
    pub fn pass_to(&mut self, child: &Child) {
        let control = child.control();
        TARGET.store(control.as_raw_fd(), Ordering::SeqCst);
        // A handler on another thread that still saw no target has noted its signal when this is over.
        settle();
        let held = HELD.swap(0, Ordering::SeqCst);
        for signal in FORWARDED.into_iter().filter(|signal| held & bit(*signal) != 0) {
            send(control.as_raw_fd(), signal);
        }
        // The one before is closed, if there was one, when nobody uses it any more.
        self.control = Some(control);
    }
}

/// Waits until no handler runs on another thread.
fn settle() {
    while HANDLING.load(Ordering::SeqCst) != 0 {
        std::thread::yield_now();
    }
}

fn bit(signal: libc::c_int) -> u64 {
    1 << (signal - 1)
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        for (signal, before) in &self.previous {
            // Somebody else's handler, set meanwhile, stays.
            if disposition(*signal).is_some_and(|now| now.sa_sigaction == pass_on as *const () as libc::sighandler_t) {
                // SAFETY: `before` is what sigaction(2) itself returned for this signal.
                unsafe { libc::sigaction(*signal, before, ptr::null_mut()) };
            }
        }
        TARGET.store(-1, Ordering::SeqCst);
        // A handler on another thread may have read the descriptor already: it must be through before that is closed.
        settle();
        self.control = None;
        TAKEN.store(false, Ordering::SeqCst);
    }
}

/// Sends the signal's number down the control socket, or notes it. Async-signal-safe.
extern "C" fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    HANDLING.fetch_add(1, Ordering::SeqCst);
    let target = TARGET.load(Ordering::SeqCst);
    if target < 0 {
        // From the terminal too: the command is not yet there to have it from there.
        HELD.fetch_or(bit(signal), Ordering::SeqCst);
    } else {
        // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo_t.
        let code = unsafe { (*info).si_code };
        if is_forwarded(signal, code) {
            send(target, signal);
        }
    }
    HANDLING.fetch_sub(1, Ordering::SeqCst);
}

/// Tells the reaper a signal's number, and leaves errno as it is. Async-signal-safe.
fn send(control: libc::c_int, signal: libc::c_int) {
    // SAFETY: the buffer is the number and lives for the call; errno is this thread's own. Whoever calls keeps the descriptor open.
    unsafe {
        let errno = *libc::__errno_location();
        libc::send(control, (&raw const signal).cast(), size_of_val(&signal), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        *libc::__errno_location() = errno;
    }
}

fn disposition(signal: libc::c_int) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: sigaction(2) writes the whole struct if it answers 0.
    unsafe { (libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0).then(|| action.assume_init()) }
}

/// The signals that this process ignores, bit `n - 1` for signal `n`.
pub(super) fn ignored() -> u64 {
    (1..=LAST)
        .filter(|signal| disposition(*signal).is_some_and(|action| action.sa_sigaction == libc::SIG_IGN))
        .fold(0, |mask, signal| mask | 1 << (signal - 1))
}

/// Gives a signal its default effect. Async-signal-safe.
pub(in crate::kernel) fn set_default(signal: libc::c_int) {
    set(signal, libc::SIG_DFL);
}

/// Ignores all signals that can be ignored. Async-signal-safe.
pub(in crate::kernel) fn ignore_all() {
    (1..=LAST).for_each(|signal| set(signal, libc::SIG_IGN));
}

/// Gives all signals their default effect, except those that were ignored. Async-signal-safe.
pub(super) fn restore_dispositions(ignored: u64) {
    for signal in 1..=LAST {
        // Rust's runtime ignores SIGPIPE for itself, not on behalf of the command.
        let ignore = ignored & (1 << (signal - 1)) != 0 && signal != libc::SIGPIPE;
        set(signal, if ignore { libc::SIG_IGN } else { libc::SIG_DFL });
    }
}

fn set(signal: libc::c_int, handler: libc::sighandler_t) {
    // SAFETY: zero is a value of every field, and the handler is SIG_DFL or SIG_IGN. Refused for SIGKILL, SIGSTOP and the two that libc keeps
    // for itself, which are as they should be.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

/// Blocks every signal on the calling thread; gives back what was blocked before.
pub(in crate::kernel) fn block_all() -> libc::sigset_t {
    let mut all = MaybeUninit::uninit();
    // SAFETY: sigfillset(3) writes the whole set.
    let all = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        all.assume_init()
    };
    set_mask(&all)
}

/// Blocks no signal on the calling thread. Async-signal-safe.
pub(super) fn unblock_all() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) writes the whole set.
    let none = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        none.assume_init()
    };
    set_mask(&none);
}

/// Blocks exactly these signals on the calling thread; gives back what was blocked before. Async-signal-safe.
pub(in crate::kernel) fn set_mask(mask: &libc::sigset_t) -> libc::sigset_t {
    let mut before = MaybeUninit::zeroed();
    // SAFETY: pthread_sigmask(3) reads one set and writes the other; all bits zero, should it fail, is the empty set.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, mask, before.as_mut_ptr());
        before.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names_and_bounds() {
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
        assert_eq!(Signal::from_raw(34).unwrap().to_string(), "signal 34");
        assert_eq!((Signal::from_raw(0), Signal::from_raw(65), Signal::from_raw(9)), (None, None, Some(Signal::KILL)));
    }

    #[test]
    fn only_what_a_process_sent_is_passed_on() {
        assert!(is_forwarded(libc::SIGTERM, libc::SI_USER) && is_forwarded(libc::SIGINT, libc::SI_QUEUE));
        assert!(is_forwarded(libc::SIGHUP, libc::SI_KERNEL) && is_forwarded(libc::SIGCONT, libc::SI_KERNEL));
        assert!(!is_forwarded(libc::SIGINT, libc::SI_KERNEL) && !is_forwarded(libc::SIGTSTP, libc::SI_USER));
    }
}
