//! The operator makes a plan for the content of its cache and executes the plan write by write, as `src/controller` does. Writes
//! of a wave are executed in any order. A wave starts only when the whole previous wave has succeeded. The operator stores each
//! answer in the cache. An answer that contradicts the observed state ends the wave, and the operator stores the current object
//! in the cache. Before a wave that deletes or releases possible startup inputs, the operator reads Contour's Deployment,
//! ReplicaSets and pods from the API server and makes the plan again.

use slipway::plan::{Kind, Write};

use crate::api_server::{self, Refusal};
use crate::items::{Id, Item, Said};
use crate::model::{Action, Change, Model, Step};
use crate::plans::Doing;
use crate::requests::{key_of, verb};
use crate::scopes::Interference;
use crate::state::{Control, OVERLOOKED, Slot, State, spend};

/// The operator's position in the execution of a plan.
struct Position {
    plan: u32,
    wave: usize,
    done: u16,
    failed: bool,
}

impl Model {
    pub fn operator_actions(&mut self, state: &State, owner: usize, actions: &mut Vec<Action>) {
        let crash = state.budgets.crashes > 0 && owner == 0;
        let knows = state.answers != [0; 2] || state.refused != [0; 2];
        if crash && (state.control.iter().any(|control| control.plan != 0) || knows) {
            actions.push(Action::Crash);
        }
        if self.waits(state, owner) {
            actions.push(Action::TimePasses);
        }
        let Some(position) = self.position(state, owner) else {
            return;
        };
        let number = u8::try_from(owner).expect("few");
        let plan = self.plans.get(position.plan).expect("a plan");
        let Some(wave) = plan.waves.get(position.wave) else {
            actions.push(Action::Ask(number));
            return;
        };
        if wave.needs_live_read && !self.breakage.is_some_and(|breakage| breakage.apply.skips_live_reads) {
            actions.push(Action::Look(number));
            return;
        }
        for write in 0..u8::try_from(wave.writes.len()).expect("few") {
            if position.done & 1 << write == 0 {
                actions.push(Action::Write(number, write));
                if self.scope.loses_answers
                    && state.budgets.crashes > 0
                    && matches!(wave.writes[usize::from(write)], Doing::One(..))
                {
                    actions.push(Action::Lose(number, write));
                }
            }
        }
    }

    /// Reports whether the operator has nothing to do until some time has passed.
    fn waits(&mut self, state: &State, owner: usize) -> bool {
        let is_new = state.slots.iter().any(|slot| self.is_young(slot.live));
        let is_silent = state.slots.iter().any(|slot| self.is_silent(state, slot));
        let retries = self.retries(state, owner);
        if state.control[owner].plan != 0 || !(is_new || is_silent || retries) {
            return false;
        }
        let plan = self.plan_for(state, owner, false);
        plan.and_then(|plan| self.plans.get(plan))
            .is_some_and(|plan| plan.waits && (is_new || retries || plan.waves.is_empty()))
    }

    /// Reports whether the operator observes an object with a lost verdict and the time of another nudge is still to come. The
    /// model has as many of these times as lost verdicts, so that the search reaches a final state if no nudge helps.
    fn is_silent(&self, state: &State, slot: &Slot) -> bool {
        let lost = self.scope.budgets.foreign - state.budgets.foreign;
        let counts = |item: &Item| {
            self.counts_age(item) && item.said == Said::Nothing && api_server::hours_of(&item.object) <= lost.into()
        };
        slot.extra == OVERLOOKED && slot.view == slot.live && self.items.get(slot.live).is_some_and(counts)
    }

    fn position(&mut self, state: &State, owner: usize) -> Option<Position> {
        let Control {
            plan,
            wave,
            done,
            failed,
        } = state.control[owner];
        if plan != 0 {
            return Some(Position {
                plan,
                wave: wave.into(),
                done,
                failed,
            });
        }
        let plan = self.plan_for(state, owner, false)?;
        let compiled = self.plans.get(plan).expect("a plan");
        let is_settled = compiled.waves.is_empty() && compiled.answer == 0;
        (!is_settled).then_some(Position {
            plan,
            wave: 0,
            done: 0,
            failed: false,
        })
    }

    pub fn operator_step(&mut self, step: &mut Step) {
        let state = step.to.clone();
        match step.action {
            Action::Crash => {
                step.name = "the operator is killed";
                step.wrote = false;
                spend(&mut step.to.budgets.crashes);
                step.to.control = [Control::default(); 2];
                step.to.answers = [0; 2];
                step.to.refused = [0; 2];
                for slot in &mut step.to.slots {
                    slot.view = slot.live;
                }
            }
            Action::Ask(owner) => {
                step.name = "the operator checks settings";
                step.wrote = false;
                let position = self.position(&state, owner.into()).expect("a plan");
                self.finish(&mut step.to, owner.into(), position.plan);
            }
            Action::Look(owner) => {
                step.name = "the operator performs a live read before deletions";
                step.wrote = false;
                self.live_read(&mut step.to, owner.into());
            }
            Action::Write(owner, write) => self.write_step(step, &state, owner.into(), write.into(), false),
            Action::Lose(owner, write) => {
                spend(&mut step.to.budgets.crashes);
                self.write_step(step, &state, owner.into(), write.into(), true);
                step.name = "the answer to a write is lost";
            }
            Action::TimePasses => {
                step.name = "time passes";
                step.wrote = false;
                for owner in 0..self.scope.owners {
                    self.allow_retries(&mut step.to, owner);
                }
                for slot in &mut step.to.slots {
                    let again = self.is_silent(&state, slot);
                    for id in [&mut slot.live, &mut slot.view] {
                        if again || self.is_young(*id) {
                            *id = self.aged(*id);
                        }
                    }
                }
            }
            _ => unreachable!("not the operator's"),
        }
    }

    /// Reports whether the age of an object matters. (The age of the user's objects matters only in scopes that lose verdicts.)
    fn counts_age(&self, item: &Item) -> bool {
        let loses_verdicts = self.scope.interference.contains(&Interference::LoseVerdict);
        matches!(item.kind(), Kind::ExtensionService | Kind::ContourConfiguration)
            && (item.owner.is_some() || loses_verdicts)
            && !self.items.is_aside(item.key)
    }

    fn is_young(&self, id: Id) -> bool {
        let item = self.items.get(id).filter(|item| self.counts_age(item));
        item.is_some_and(|item| {
            item.object
                .metadata
                .creation_timestamp
                .as_ref()
                .is_some_and(|made| made.0 == api_server::NOW)
        })
    }

    fn aged(&mut self, id: Id) -> Id {
        let known = self.changes.get(&(Change::Age, id, 0)).copied();
        let aged = known.unwrap_or_else(|| {
            let aged = api_server::aged(&self.item(id).object);
            Ok(self.items.put(aged))
        });
        self.changes.insert((Change::Age, id, 0), aged);
        aged.expect("aging is never refused")
    }

    /// Ends a plan: records the answers to questions. The operator then observes again.
    fn finish(&mut self, state: &mut State, owner: usize, plan: u32) {
        let answer = self.plans.get(plan).expect("a plan").answer;
        if answer != 0 {
            state.answers[owner] = answer;
        }
        state.control[owner] = Control::default();
    }

    /// Performs a live read. Keeps the deletions of a wave that the plan for the live state contains, too.
    fn live_read(&mut self, state: &mut State, owner: usize) {
        let position = self.position(state, owner).expect("a plan");
        let waves = self.plans.get(position.plan).expect("a plan").waves.clone();
        let wave = &waves[position.wave];
        let fresh = self.plan_for(state, owner, true);
        let still: Vec<Write> = fresh
            .and_then(|fresh| self.plans.get(fresh))
            .map(|fresh| {
                fresh
                    .waves
                    .iter()
                    .filter(|wave| wave.needs_live_read)
                    .flat_map(|wave| wave.planned.clone())
                    .collect()
            })
            .unwrap_or_default();
        let left: Vec<Write> = wave
            .planned
            .iter()
            .filter(|write| still.contains(write))
            .cloned()
            .collect();
        if left.is_empty() {
            state.control[owner] = Control::default();
            return;
        }
        let left = self.wave_of(wave.name, false, left);
        let looked = self.intern(vec![left], 0, false);
        state.control[owner] = Control {
            plan: looked,
            ..Control::default()
        };
    }

    /// Returns the writes of a step of the operator.
    pub fn doing(&self, state: &State, owner: usize, index: usize) -> Option<&Doing> {
        let control = state.control[owner];
        let (plan, wave) = match control.plan {
            0 => (*self.plans.by_observed.get(&self.seen(state, owner, false)?)?, 0),
            plan => (plan, usize::from(control.wave)),
        };
        self.plans.get(plan)?.waves.get(wave)?.writes.get(index)
    }

    fn write_step(&mut self, step: &mut Step, before: &State, owner: usize, index: usize, lost: bool) {
        let position = self.position(before, owner).expect("a plan");
        step.problems
            .extend(self.plans.problems.get(&position.plan).into_iter().flatten().cloned());
        let waves = self.plans.get(position.plan).expect("a plan").waves.clone();
        let all = waves[position.wave].writes.len();
        let waves_in_all = waves.len();
        let succeeded = match &waves[position.wave].writes[index] {
            Doing::Furniture(number, writes) => {
                step.name = "the operator writes access, certificates, Services, Envoy";
                let furniture = self.furnish(before.furniture[owner], *number, writes);
                step.wrote = furniture != before.furniture[owner];
                step.to.furniture[owner] = furniture;
                true
            }
            Doing::One(number, write) => self.write(step, owner, *number, write, lost),
        };
        let done = position.done | 1 << index;
        let failed = position.failed || !succeeded;
        let plan = position.plan;
        step.to.control[owner] = if done.count_ones() as usize == all {
            if failed {
                Control::default()
            } else if position.wave + 1 == waves_in_all {
                self.finish(&mut step.to, owner, plan);
                Control::default()
            } else {
                let wave = u8::try_from(position.wave + 1).expect("few");
                Control {
                    plan,
                    wave,
                    ..Control::default()
                }
            }
        } else {
            let wave = u8::try_from(position.wave).expect("few");
            Control {
                plan,
                wave,
                done,
                failed,
            }
        };
    }

    /// Executes one request. Reports whether the request succeeded.
    fn write(&mut self, step: &mut Step, owner: usize, number: u32, write: &Write, lost: bool) -> bool {
        let before = step.to.clone();
        let key = self.items.key_id(&key_of(write));
        let live = before.live(key);
        let result = self.request(&before, key, number, write);
        step.name = verb(write);
        step.problems
            .extend(self.check_write(&before, owner, key, write, result));
        let flaws = self.breakage.map(|breakage| breakage.apply).unwrap_or_default();
        match result {
            Ok(id) => {
                step.to.set_live(key, id);
                step.problems.extend(self.check_captured(&before, &step.to));
                if self.remembers(&key_of(write)) {
                    self.forget_refused(&mut step.to, owner, &key_of(write));
                }
                if lost {
                    return false;
                }
                step.to.set_view(key, id);
                step.wrote = id != live;
                true
            }
            Err(refusal) => {
                step.wrote = false;
                let owns = self.items.get(live).is_some_and(|item| self.is_owned_by(item, owner));
                match refusal {
                    Refusal::AlreadyExists if !owns && flaws.adopts => {
                        let Write::Create(object) = write else {
                            unreachable!("only a creation")
                        };
                        let foreign = self.item(live).object.clone();
                        let mut object = object.clone();
                        object.metadata.uid.clone_from(&foreign.metadata.uid);
                        let taken = api_server::applied(&foreign, &object).map_or(0, |object| self.items.put(object));
                        step.problems.push(format!(
                            "{} is an object of another user, and was overwritten",
                            key_of(write)
                        ));
                        step.to.set_live(key, taken);
                        step.wrote = true;
                    }
                    // A collision: the operator reports the collision and writes nothing.
                    Refusal::AlreadyExists if !owns => {
                        step.name = "the operator meets an object of another user";
                        return self.is_set_aside(step, owner, write, refusal);
                    }
                    Refusal::NotFound if matches!(write, Write::Create(_)) => {
                        step.name = "the operator cannot write: the namespace does not exist";
                    }
                    Refusal::NamespaceTerminating => {
                        step.name = "the operator cannot write: the namespace is Terminating";
                        return self.is_set_aside(step, owner, write, refusal);
                    }
                    Refusal::Invalid | Refusal::Forbidden => {
                        step.name = "the operator's write is refused";
                        return self.is_set_aside(step, owner, write, refusal);
                    }
                    Refusal::AlreadyExists | Refusal::Conflict | Refusal::NotFound => {
                        step.name = "the operator detects a stale view";
                        step.to.set_view(key, live);
                    }
                }
                false
            }
        }
    }

    /// Records a refusal in another namespace, so that the next plan works without the write. Reports whether the current plan
    /// continues. An endless series of retries would be an unsettled model, too.
    fn is_set_aside(&mut self, step: &mut Step, owner: usize, write: &Write, refusal: Refusal) -> bool {
        let flaws = self.breakage.map(|breakage| breakage.apply).unwrap_or_default();
        self.remembers(&key_of(write)) && {
            step.wrote = true;
            step.problems.extend(self.check_backoff(&step.to, owner, write));
            let goes_on = self.note_refused(&mut step.to, owner, write, refusal);
            goes_on && !flaws.stops_at_refusals
        }
    }
}
