//! Real programs through the fence: clients that people use, terminals, streams, exit statuses, proxies of others.
//!
//! Each needs a program that may not be here, and then says so loudly; with `RINGFENCE_TEST_ORACLES=require` it fails.
#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

mod child;
mod clients;
mod databases;
mod proxies;

use std::process::{Child, Command, Stdio};

/// A server that is killed when its test ends.
struct Server(Child);

impl Server {
    fn start(spawn: impl FnOnce(Command) -> Child, mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(spawn(command))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
