//! Slipway's plans in a simulated cluster: an API server, Kubernetes' controllers and Contour, each making its steps when a
//! test says so. Every test is named by the sentence that must hold.

mod api_server;
mod cluster;
mod controllers;
mod invariants;
mod scene;

mod deletion;
mod drift;
mod homes;
mod memory;
mod order;
mod oversize;
mod ownership;
mod pruning;
mod rollout;
mod settle;
mod stand_ins;
mod status;
mod strangers;
mod succession;
mod traffic;
mod verdicts;
mod webhooks;
