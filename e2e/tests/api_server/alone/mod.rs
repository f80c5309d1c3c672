//! Tests that stop the operator, or change what all tests stand on. They run one at a time; as libtest takes tests in the
//! order of their names, they come before the others, which then have all threads.

mod contour;
mod contour_crds;
mod memory;
mod operator;
mod orders;
mod permissions;
mod policies;
mod release;
mod undecodable;
