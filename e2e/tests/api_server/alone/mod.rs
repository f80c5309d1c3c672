//! Tests that stop the operator, or change objects that all tests depend on. These tests run one at a time. libtest runs tests in
//! the order of their names, so these tests run before most other tests, which can then use all threads.

mod contour;
mod contour_crds;
mod memory;
mod operator;
mod orders;
mod permissions;
mod policies;
mod release;
mod undecodable;
