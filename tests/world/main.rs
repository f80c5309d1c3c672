//! Runs Slipway's plans in a simulated cluster: an API server, Kubernetes' controllers and Contour. Each of them takes a step
//! only when a test requests the step. The name of each test is the sentence that the test proves.

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
