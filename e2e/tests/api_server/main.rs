//! Tests on a real API server. The real operator runs as a process with the rights of its service account, and its admission
//! policies are in force. There is no kubelet and no Contour. Tests that need one simulate it (`slipway_e2e::lab::players`).
//!
//! The tests need root and everything that `e2e/testbed/testbed check` checks. On a machine without these, the tests fail.
//! `KEEP=1` leaves the API server running. `SLIPWAY_BIN` selects the operator to test; by default, cargo builds the operator.

mod admission;
mod alone;
mod bad_input;
mod conflicts;
mod deletion;
mod drift;
mod httpproxies;
mod interface;
mod objects;
mod overlays;
mod permissions;
mod process;
mod rules;
mod settings;
mod stand_ins;
