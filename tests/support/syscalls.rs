//! System calls that a signal ends early in spite of `SA_RESTART`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Waits in the kernel. Returns true if a signal has ended that.
pub type Call = Box<dyn Fn() -> bool + Send + Sync>;

/// Returns calls that each wait for this long, with their names.
pub fn waiting(millis: u16) -> [(&'static str, Call); 5] {
    let time = libc::timespec {
        tv_sec: (millis / 1000).into(),
        tv_nsec: libc::c_long::from(millis % 1000) * 1_000_000,
    };
    let (reader, writer) = io::pipe().unwrap();
    let (poll_set, millis) = (empty_poll_set(), i32::from(millis));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(millis as u64))).unwrap();
    [
        ("nanosleep", Box::new(move || is_interrupted(nanosleep(time)))),
        (
            "poll",
            Box::new(move || {
                // Without a writer it would not wait.
                let _open = &writer;
                is_interrupted(poll(reader.as_raw_fd(), millis))
            }),
        ),
        ("select", Box::new(move || is_interrupted(select(millis)))),
        ("epoll_wait", Box::new(move || is_interrupted(epoll_wait(poll_set, millis)))),
        ("recv with a timeout", Box::new(move || is_interrupted(socket.recv(&mut [0]).map_or(-1, |_| 0)))),
    ]
}

fn is_interrupted(result: libc::c_int) -> bool {
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
}

fn nanosleep(time: libc::timespec) -> libc::c_int {
    // SAFETY: the kernel reads the time.
    unsafe { libc::nanosleep(&time, std::ptr::null_mut()) }
}

fn poll(file: libc::c_int, millis: i32) -> libc::c_int {
    let mut file = libc::pollfd { fd: file, events: libc::POLLIN, revents: 0 };
    // SAFETY: the kernel writes to one structure.
    unsafe { libc::poll(&mut file, 1, millis) }
}

fn select(millis: i32) -> libc::c_int {
    let mut time = libc::timeval { tv_sec: (millis / 1000).into(), tv_usec: (millis % 1000 * 1000).into() };
    let null = std::ptr::null_mut();
    // SAFETY: the kernel reads and writes the time, and there are no sets.
    unsafe { libc::select(0, null, null, null, &mut time) }
}

fn empty_poll_set() -> libc::c_int {
    // SAFETY: it takes a number.
    unsafe { libc::epoll_create1(0) }
}

fn epoll_wait(set: libc::c_int, millis: i32) -> libc::c_int {
    let mut event = MaybeUninit::uninit();
    // SAFETY: the kernel writes to at most one event.
    unsafe { libc::epoll_wait(set, event.as_mut_ptr(), 1, millis) }
}
