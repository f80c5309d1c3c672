//! Where the operator sits: it is started here, killed from wherever a fault strikes, and started again.

use std::sync::Mutex;

use crate::lab::operator::{Operator, Setup};

/// At most one operator.
#[derive(Debug)]
pub struct Seat {
    setup: Setup,
    operator: Mutex<Option<Operator>>,
}

impl Seat {
    /// Nobody yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            operator: Mutex::default(),
        }
    }

    /// How the operator is started.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Starts an operator, if there is none. Says whether there was none.
    pub fn take(&self) -> anyhow::Result<bool> {
        let mut seat = self.operator.lock().expect("nobody panics with the lock");
        let free = seat.is_none();
        if free {
            *seat = Some(Operator::start(&self.setup)?);
        }
        Ok(free)
    }

    /// Kills the operator (SIGKILL), if there is one.
    pub fn kill(&self) {
        drop(self.operator.lock().expect("nobody panics with the lock").take());
    }
}
