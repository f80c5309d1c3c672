//! Faults between the operator and the API server: a proxy (`proxy`, `streams`) does what a script (`script`) says to requests,
//! streams and the operator itself (`seat`), or connections die beside it (`dead`), in the middle of what a user does (`workload`). One fault in one workload is a plan
//! (`plan`; `selection` says which there are), carried out on a stage (`stage`, `run`). What must be true in the end is that it is
//! as without the fault (`state`, with all masks), that nothing was created or deleted more often (`counts`, from the audit
//! log), and that after no commit on the way was anything unchecked (`history`).

pub mod counts;
pub mod dead;
pub mod history;
pub mod plan;
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
