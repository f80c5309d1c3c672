//! What must hold on a real API server, with the real operator as a process that has the rights of its service account, and with
//! its admission policies in force. There is no kubelet and no Contour: where one is needed a test plays it (`slipway_e2e::lab::players`).
//!
//! They need root and what `e2e/testbed/testbed check` asks for, and fail where they can't run. `KEEP=1` leaves the API server
//! running; `SLIPWAY_BIN` is the operator to test, if it is not the one that cargo builds.

mod admission;
mod alone;
mod bad_input;
mod conflicts;
mod deletion;
mod drift;
mod httpproxies;
mod interface;
mod objects;
mod permissions;
mod process;
mod rules;
mod settings;
mod stand_ins;
