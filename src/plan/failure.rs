//! What could not be done, and what is in the way.

use serde::Deserialize;

use super::object::Key;

/// A write that could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which object.
    pub key: Key,
    /// What is in the way.
    pub cause: FailureCause,
    /// In words.
    pub message: String,
}

/// What is in the way of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum FailureCause {
    /// An object of that name exists and is not ours.
    Collision,
    /// The API server forbids it.
    Forbidden,
    /// Our admission policy looks for the ContourDeployment that lets us into its namespace, in a cache of the API server's
    /// that has not seen it yet.
    AccessPending,
    /// The namespace is being deleted.
    NamespaceTerminating,
    /// The API server refuses the object.
    Refused,
    /// Something changes a field in our own write that must be as we write it.
    NotTaken,
    /// Somebody changes the object again and again.
    Contested,
    /// One write followed another without an end.
    Unsettled,
    /// Anything that trying again may cure.
    Transient,
}
