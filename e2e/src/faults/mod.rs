//! Faults between the operator and the API server.
//!
//! A proxy (`proxy`, `streams`) follows a script (`script`) and disturbs requests, streams and the operator itself (`seat`).
//! Alternatively, connections die without the proxy (`dead`). The faults happen during a user's action (`workload`).
//!
//! A plan (`plan`) is one fault in one workload. `selection` lists the plans; `run` executes them on a stage (`stage`).
//!
//! At the end, the state must equal the state without the fault (`state`, with all masks). No object may be created or deleted more
//! often than without the fault (`counts`, from the audit log). After each commit on the way, all traffic must be checked
//! (`history`).

pub mod counts;
pub mod dead;
pub mod history;
pub mod plan;
pub mod proof;
pub mod proxy;
pub mod request;
pub mod run;
pub mod script;
pub mod seat;
pub mod selection;
pub mod stage;
pub mod state;
pub mod streams;
pub mod tally;
pub mod workload;
