//! Failed writes and their causes.

use serde::Deserialize;

use super::object::Key;

/// A write that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The object.
    pub key: Key,
    /// The cause of the failure.
    pub cause: FailureCause,
    /// The message for the user.
    pub message: String,
}

/// The cause of a failed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum FailureCause {
    /// An object of the same name exists and is not owned by this ContourDeployment.
    Collision,
    /// The API server forbids the write.
    Forbidden,
    /// The admission policy looks up the ContourDeployment that permits writes to its namespace. The cache of the API server does not
    /// contain that ContourDeployment yet.
    AccessPending,
    /// The namespace is being deleted.
    NamespaceTerminating,
    /// The API server rejects the object.
    Refused,
    /// A webhook or policy changes a field of Slipway's own write that must keep Slipway's value.
    NotTaken,
    /// Another user or controller keeps changing the object.
    Contested,
    /// The object does not converge: one write follows another without an end.
    Unsettled,
    /// Any failure that a retry may resolve.
    Transient,
}
