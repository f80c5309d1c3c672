//! A state of the world: what is on the API server, what the operator has seen of it, where its processes are.

use slipway::plan::Kind;

use crate::items::{Id, Items, KeyId};

/// How many ContourDeployments there may be.
pub const MOST_OWNERS: usize = 2;

/// What is known of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    pub key: KeyId,
    /// On the API server.
    pub live: Id,
    /// In the operator's cache.
    pub view: Id,
    /// A pod: its container ([`Container`]). A Deployment: the ReplicaSet of the template that its controller has seen, as a
    /// key, plus one. An ExtensionService: whether its verdict is [`OVERLOOKED`]. Any object that is gone: 1 if a foreigner
    /// deleted it.
    pub extra: u32,
}

/// Contour's word is out of date, and Contour has no reason to look again.
pub const OVERLOOKED: u32 = 1;

/// A pod's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// It is about to start.
    Waiting,
    /// It exited at its start, and will be started again.
    Exited,
    /// It runs, on what it captured.
    Running(u32),
}

impl Container {
    pub fn of(extra: u32) -> Self {
        match extra {
            0 => Self::Waiting,
            1 => Self::Exited,
            captured => Self::Running(captured - 2),
        }
    }

    pub fn encoded(self) -> u32 {
        match self {
            Self::Waiting => 0,
            Self::Exited => 1,
            Self::Running(captured) => captured + 2,
        }
    }
}

/// Where the operator is with one ContourDeployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Control {
    /// The plan that it carries out, plus one; 0: none, it is about to look.
    pub plan: u32,
    /// The wave.
    pub wave: u8,
    /// Which of its writes have been answered.
    pub done: u16,
    /// Whether one of them did not succeed, so that this wave is the last.
    pub failed: bool,
}

/// How often somebody may still do something; `UNLIMITED`: always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budgets {
    /// The ExtensionService is deleted.
    pub flaps: u8,
    /// The user changes his mind: another form of the ExtensionService than the last.
    pub changes: u8,
    /// … of the ContourDeployment's spec.
    pub respecifications: u8,
    /// A ContourDeployment is deleted.
    pub deletions: u8,
    /// The Service is deleted.
    pub services: u8,
    /// The namespace is deleted.
    pub namespaces: u8,
    /// A foreigner alters or deletes something of ours.
    pub foreign: u8,
    /// A container is killed.
    pub kills: u8,
    /// The operator is killed, or an answer lost.
    pub crashes: u8,
    /// A tenant makes an imitation.
    pub tenant: u8,
}

pub const UNLIMITED: u8 = u8::MAX;

impl Budgets {
    pub const NONE: Self = Self {
        flaps: 0,
        changes: 0,
        respecifications: 0,
        deletions: 0,
        services: 0,
        namespaces: 0,
        foreign: 0,
        kills: 0,
        crashes: 0,
        tenant: 0,
    };

    fn bytes(self) -> [u8; 10] {
        let Self {
            flaps,
            changes,
            respecifications,
            deletions,
            services,
            namespaces,
            foreign,
            kills,
            crashes,
            tenant,
        } = self;
        [
            flaps,
            changes,
            respecifications,
            deletions,
            services,
            namespaces,
            foreign,
            kills,
            crashes,
            tenant,
        ]
    }

    fn of(bytes: [u8; 10]) -> Self {
        let [
            flaps,
            changes,
            respecifications,
            deletions,
            services,
            namespaces,
            foreign,
            kills,
            crashes,
            tenant,
        ] = bytes;
        Self {
            flaps,
            changes,
            respecifications,
            deletions,
            services,
            namespaces,
            foreign,
            kills,
            crashes,
            tenant,
        }
    }
}

/// Spends one; false: there is none left.
pub fn spend(budget: &mut u8) -> bool {
    match *budget {
        UNLIMITED => true,
        0 => false,
        _ => {
            *budget -= 1;
            true
        }
    }
}

/// The world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// By key.
    pub slots: Vec<Slot>,
    /// What else belongs to each ContourDeployment (access, certificates, Services, Envoy), as one number.
    pub furniture: [u32; MOST_OWNERS],
    pub control: [Control; MOST_OWNERS],
    /// What the operator remembers of the API server's word on the settings; 0: nothing.
    pub answers: [u32; MOST_OWNERS],
    /// What it remembers of its writes that were refused (`Model::refused`); 0: nothing.
    pub refused: [u32; MOST_OWNERS],
    pub budgets: Budgets,
    /// Forms of the user's ExtensionService that Contour has found valid, as bits.
    pub judged: u8,
    /// The form that the user chose last.
    pub form: u8,
}

impl State {
    pub fn slot(&self, key: KeyId) -> Slot {
        match self.slots.binary_search_by_key(&key, |slot| slot.key) {
            Ok(index) => self.slots[index],
            Err(_) => Slot { key, ..Slot::default() },
        }
    }

    pub fn slot_mut(&mut self, key: KeyId) -> &mut Slot {
        let index = match self.slots.binary_search_by_key(&key, |slot| slot.key) {
            Ok(index) => index,
            Err(index) => {
                self.slots.insert(index, Slot { key, ..Slot::default() });
                index
            }
        };
        &mut self.slots[index]
    }

    pub fn live(&self, key: KeyId) -> Id {
        self.slot(key).live
    }

    /// An object changes. What a foreigner deleted and is made again is no longer his doing.
    pub fn set_live(&mut self, key: KeyId, id: Id) {
        let slot = self.slot_mut(key);
        if slot.live == 0 || id == 0 {
            slot.extra = 0;
        }
        slot.live = id;
    }

    pub fn set_view(&mut self, key: KeyId, id: Id) {
        self.slot_mut(key).view = id;
    }

    /// Live objects of a kind, but for those that are [aside](Items::is_aside).
    pub fn of_kind<'a>(&'a self, items: &'a Items, kind: Kind) -> impl Iterator<Item = Slot> + 'a {
        self.slots
            .iter()
            .copied()
            .filter(move |slot| slot.live != 0 && items.kind(slot.key) == kind && !items.is_aside(slot.key))
    }

    /// Forgets what is nowhere any more.
    pub fn tidy(&mut self) {
        self.slots
            .retain(|slot| slot.live != 0 || slot.view != 0 || slot.extra != 0);
    }

    pub fn pack(&self) -> Vec<u32> {
        let mut packed = Vec::with_capacity(self.slots.len() * 4 + 20);
        packed.push(u32::try_from(self.slots.len()).expect("few"));
        for slot in &self.slots {
            packed.extend([slot.key, slot.live, slot.view, slot.extra]);
        }
        packed.extend(self.furniture);
        for control in &self.control {
            let position = u32::from(control.done) | u32::from(control.wave) << 16 | u32::from(control.failed) << 31;
            packed.extend([control.plan, position]);
        }
        packed.extend(self.answers);
        packed.extend(self.refused);
        let budgets = self.budgets.bytes();
        packed.push(u32::from_le_bytes([budgets[0], budgets[1], budgets[2], budgets[3]]));
        packed.push(u32::from_le_bytes([budgets[4], budgets[5], budgets[6], budgets[7]]));
        packed.push(u32::from_le_bytes([self.judged, self.form, budgets[8], budgets[9]]));
        packed
    }

    pub fn unpack(packed: &[u32]) -> Self {
        let count = packed[0] as usize;
        let (slots, rest) = packed[1..].split_at(count * 4);
        let slots = slots
            .chunks_exact(4)
            .map(|slot| Slot {
                key: slot[0],
                live: slot[1],
                view: slot[2],
                extra: slot[3],
            })
            .collect();
        let control = |at: usize| Control {
            plan: rest[at],
            wave: (rest[at + 1] >> 16 & 0xff) as u8,
            done: (rest[at + 1] & 0xffff) as u16,
            failed: rest[at + 1] >> 31 == 1,
        };
        let [judged, form, last @ ..] = rest[12].to_le_bytes();
        let mut budgets = [0; 10];
        budgets[..4].copy_from_slice(&rest[10].to_le_bytes());
        budgets[4..8].copy_from_slice(&rest[11].to_le_bytes());
        budgets[8..].copy_from_slice(&last);
        Self {
            slots,
            furniture: [rest[0], rest[1]],
            control: [control(2), control(4)],
            answers: [rest[6], rest[7]],
            refused: [rest[8], rest[9]],
            budgets: Budgets::of(budgets),
            judged,
            form,
        }
    }
}
