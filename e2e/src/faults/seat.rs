//! The holder of the operator process. A plan starts the operator here; a fault may kill the operator from anywhere.

use std::sync::Mutex;

use crate::lab::operator::{Operator, Setup};

/// A holder of at most one operator.
#[derive(Debug)]
pub struct Seat {
    setup: Setup,
    operator: Mutex<Option<Operator>>,
}

impl Seat {
    /// Returns an empty seat.
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            operator: Mutex::default(),
        }
    }

    /// Returns the setup with which the operator is started.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Starts an operator if the seat is empty. Returns whether the seat was empty.
    pub fn take(&self) -> anyhow::Result<bool> {
        let mut seat = self.operator.lock().expect("the lock is not poisoned");
        let free = seat.is_none();
        if free {
            *seat = Some(Operator::start(&self.setup)?);
        }
        Ok(free)
    }

    /// Kills the operator (SIGKILL), if any.
    pub fn kill(&self) {
        drop(self.operator.lock().expect("the lock is not poisoned").take());
    }
}
