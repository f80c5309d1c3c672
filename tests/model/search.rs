//! The search visits every reachable state breadth first, so the path to a bad state is the shortest. The search then checks that
//! every state settles.
//!
//! The check of settling uses the graph of the certain steps, which happen without a user, another user or a fault. A state
//! without certain steps must be the right final state. A cycle of certain steps that contains a write never settles. (A cycle
//! without writes ends with the first watch that catches up, because such a step stays possible until the step happens.)

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap as HashMap;

use crate::items::fingerprint;
use crate::model::{Action, Model};
use crate::state::State;

/// The result of the search of a scope.
pub struct Found {
    pub states: usize,
    pub steps: usize,
    pub ends: usize,
    pub observed: usize,
    pub counts: BTreeMap<&'static str, usize>,
    pub counterexample: Option<Counterexample>,
}

/// A path to a bad state or to a cycle.
pub struct Counterexample {
    pub problems: Vec<String>,
    pub way: Vec<Action>,
}

/// The path to each state, and the certain steps from each state.
struct Graph {
    parents: Vec<(u32, Action)>,
    /// The index in `certain` at which the certain steps from a state begin.
    begins: Vec<u32>,
    /// The state that a certain step leads to. The highest bit reports that the step writes.
    certain: Vec<u32>,
}

const WROTE: u32 = 1 << 31;

/// The interval between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Searches a scope to its end, or to the first counterexample. Gives up after `most` states.
pub fn search(model: &mut Model, most: usize, progress: &mut dyn FnMut(usize, usize)) -> Found {
    let start = model.start();
    let mut known: HashMap<u128, u32> = HashMap::default();
    let mut graph = Graph {
        parents: Vec::new(),
        begins: Vec::new(),
        certain: Vec::new(),
    };
    let mut frontier: VecDeque<Box<[u8]>> = VecDeque::new();
    let mut found = Found {
        states: 0,
        steps: 0,
        ends: 0,
        observed: 0,
        counts: BTreeMap::new(),
        counterexample: None,
    };

    let packed = start.pack();
    known.insert(fingerprint(&packed), 0);
    graph.parents.push((0, Action::Crash));
    frontier.push_back(packed.into());
    let mut index = 0_u32;
    let mut told = Instant::now();
    while let Some(packed) = frontier.pop_front() {
        let state = State::unpack(&packed);
        graph.begins.push(number(graph.certain.len()));
        let mut is_end = true;
        for action in model.enabled(&state) {
            let step = model.take(&state, action);
            found.steps += 1;
            *found.counts.entry(step.name).or_default() += 1;
            if !step.problems.is_empty() {
                let mut way = graph.way(index);
                way.push(action);
                found.counterexample = Some(Counterexample {
                    problems: step.problems,
                    way,
                });
                return finish(found, &known, model);
            }
            if step.to == state {
                continue;
            }
            let next = step.to.pack();
            let fresh = number(graph.parents.len());
            let to = *known.entry(fingerprint(&next)).or_insert(fresh);
            if action.is_certain() {
                is_end = false;
                graph.certain.push(to | if step.wrote { WROTE } else { 0 });
            }
            if to != fresh {
                continue;
            }
            graph.parents.push((index, action));
            let problems = model.check_state(&step.to);
            if !problems.is_empty() {
                found.counterexample = Some(Counterexample {
                    problems,
                    way: graph.way(fresh),
                });
                return finish(found, &known, model);
            }
            frontier.push_back(next.into());
        }
        if is_end {
            found.ends += 1;
            let problems = model.check_end(&state);
            if !problems.is_empty() {
                found.counterexample = Some(Counterexample {
                    problems,
                    way: graph.way(index),
                });
                return finish(found, &known, model);
            }
        }
        index += 1;
        if told.elapsed() > PROGRESS_INTERVAL {
            told = Instant::now();
            progress(known.len(), frontier.len());
        }
        if known.len() > most {
            // A search that gives up does not show that the removal of a guard would be noticed later.
            if model.breakage.is_some() {
                return finish(found, &known, model);
            }
            let problems = vec![format!(
                "more than {most} states: the search of this scope does not end"
            )];
            found.counterexample = Some(Counterexample {
                problems,
                way: graph.way(index),
            });
            return finish(found, &known, model);
        }
    }
    graph.begins.push(number(graph.certain.len()));
    found.counterexample = graph.unsettled();
    finish(found, &known, model)
}

fn finish(mut found: Found, known: &HashMap<u128, u32>, model: &Model) -> Found {
    found.states = known.len();
    found.observed = model.plans.observed();
    found
}

impl Graph {
    /// Returns the shortest path to a state.
    fn way(&self, mut index: u32) -> Vec<Action> {
        let mut way = Vec::new();
        while index != 0 {
            let (parent, action) = self.parents[index as usize];
            way.push(action);
            index = parent;
        }
        way.reverse();
        way
    }

    fn next(&self, index: u32) -> &[u32] {
        let [from, to] = [0, 1].map(|more| self.begins[index as usize + more] as usize);
        &self.certain[from..to]
    }

    /// Returns a state from which certain steps write forever (Tarjan's strongly connected components, without recursion), or
    /// None.
    fn unsettled(&self) -> Option<Counterexample> {
        let count = self.begins.len() - 1;
        let (mut order, mut low, mut component) = (vec![0_u32; count], vec![0_u32; count], vec![0_u32; count]);
        let (mut visited, mut components) = (0_u32, 0_u32);
        let mut open: Vec<u32> = Vec::new();
        for root in 0..number(count) {
            if order[root as usize] != 0 {
                continue;
            }
            let mut calls: Vec<(u32, usize)> = vec![(root, 0)];
            while let Some((at, edge)) = calls.pop() {
                if edge == 0 {
                    visited += 1;
                    order[at as usize] = visited;
                    low[at as usize] = visited;
                    open.push(at);
                }
                if let Some(to) = self.next(at).get(edge).map(|to| to & !WROTE) {
                    calls.push((at, edge + 1));
                    if order[to as usize] == 0 {
                        calls.push((to, 0));
                    } else if component[to as usize] == 0 {
                        low[at as usize] = low[at as usize].min(order[to as usize]);
                    }
                    continue;
                }
                if low[at as usize] == order[at as usize] {
                    components += 1;
                    while let Some(member) = open.pop() {
                        component[member as usize] = components;
                        if member == at {
                            break;
                        }
                    }
                }
                if let Some((parent, _)) = calls.last() {
                    low[*parent as usize] = low[*parent as usize].min(low[at as usize]);
                }
            }
        }
        (0..number(count)).find_map(|from| {
            let round = self.next(from).iter().find(|to| {
                let inside = component[(*to & !WROTE) as usize] == component[from as usize];
                inside && *to & WROTE != 0
            })?;
            let problems = vec![format!(
                "liveness: a cycle of certain steps from this state contains a write (state {from} → {})",
                round & !WROTE
            )];
            Some(Counterexample {
                problems,
                way: self.way(from),
            })
        })
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count)
        .ok()
        .filter(|number| *number < WROTE)
        .expect("fewer than 2^31")
}
