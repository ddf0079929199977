//! A network namespace with nothing in it but loopback: what is sent anywhere else has no route.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use kvern_e2e::needs;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace; removed when dropped.
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one, if we may make it.
    pub(super) fn new(name: &str) -> Option<Self> {
        if !needs::root() || !needs::programs(&["ip"]) {
            return None;
        }
        let this = Self { name: format!("kvern-e2e-{name}-{}", std::process::id()) };
        let made = ip(&["netns", "add", &this.name]) && ip(&["-n", &this.name, "link", "set", "lo", "up"]);
        needs::is_given("the right to make a network namespace", made).then_some(this)
    }

    /// Runs this in the namespace: on a thread of its own, whose sockets and child processes are born there.
    pub(super) fn inside(&self, run: impl FnOnce() + Send) {
        let ran = std::thread::scope(|scope| {
            let inside = || {
                let namespace = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("we may enter it");
                run();
            };
            scope.spawn(inside).join()
        });
        if let Err(panic) = ran {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).status().is_ok_and(|status| status.success())
}
