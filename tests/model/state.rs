//! A state of the model: the objects on the API server, the operator's view of the objects, and the positions of the operator's
//! processes.

use slipway::plan::Kind;

use crate::items::{Id, Items, KeyId};

/// The maximum number of ContourDeployments.
pub const MOST_OWNERS: usize = 2;

/// The state of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    pub key: KeyId,
    /// The object on the API server.
    pub live: Id,
    /// The object in the operator's cache.
    pub view: Id,
    /// For a pod: the container ([`Container`]). For a Deployment: the key, plus one, of the ReplicaSet of the template that the
    /// controller has observed. For an ExtensionService: whether the verdict is [`OVERLOOKED`]. For any object that is gone: 1 if
    /// another user deleted the object.
    pub extra: u32,
}

/// The verdict is out of date, and Contour has no reason to judge again.
pub const OVERLOOKED: u32 = 1;

/// The container of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// The container is about to start.
    Waiting,
    /// The container exited at its start, and kubelet will start the container again.
    Exited,
    /// The container runs on the startup inputs of this number.
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

/// The operator's position in the execution of a plan for one ContourDeployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Control {
    /// The number of the current plan plus one. 0: the operator has no plan and is about to observe.
    pub plan: u32,
    /// The index of the current wave.
    pub wave: u8,
    /// The writes of the wave that have been answered, as bits.
    pub done: u16,
    /// Whether a write of the wave failed. The operator then does not start the next wave.
    pub failed: bool,
}

/// The number of times that each step may still happen. `UNLIMITED`: any number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budgets {
    /// Deletions of the ExtensionService.
    pub flaps: u8,
    /// Changes of the ExtensionService to another spec than the last spec.
    pub changes: u8,
    /// Changes of the ContourDeployment's spec.
    pub respecifications: u8,
    /// Deletions of a ContourDeployment.
    pub deletions: u8,
    /// Deletions of the Service.
    pub services: u8,
    /// Deletions of the namespace.
    pub namespaces: u8,
    /// Changes and deletions of Slipway's objects by another user.
    pub foreign: u8,
    /// Kills of a container.
    pub kills: u8,
    /// Kills of the operator, and lost answers.
    pub crashes: u8,
    /// Imitations that a tenant creates.
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

/// Spends one unit of a budget. Returns false if the budget is used up.
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

/// The bit of a byte of a packed state that reports that the number continues.
const CONTINUED: u32 = 0x80;

/// A state of the whole model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Sorted by key.
    pub slots: Vec<Slot>,
    /// The other objects of each ContourDeployment (access, certificates, Services, Envoy), as one number.
    pub furniture: [u32; MOST_OWNERS],
    pub control: [Control; MOST_OWNERS],
    /// The API server's verdict on the settings that the operator remembers, as a number. 0: no verdict.
    pub answers: [u32; MOST_OWNERS],
    /// The refused writes that the operator remembers (`Model::refused`), as a number. 0: no refused writes.
    pub refused: [u32; MOST_OWNERS],
    pub budgets: Budgets,
    /// The specs of the user's ExtensionService that Contour has judged valid, as bits.
    pub judged: u8,
    /// The spec of the ExtensionService that the user chose last.
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

    /// Sets the object on the API server. An object that another user deleted counts as the operator's responsibility again when
    /// the object is recreated.
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

    /// Returns the existing objects of a kind, except for those that are [aside](Items::is_aside).
    pub fn of_kind<'a>(&'a self, items: &'a Items, kind: Kind) -> impl Iterator<Item = Slot> + 'a {
        self.slots
            .iter()
            .copied()
            .filter(move |slot| slot.live != 0 && items.kind(slot.key) == kind && !items.is_aside(slot.key))
    }

    /// Removes the slots of objects that exist neither on the API server nor in the cache.
    pub fn tidy(&mut self) {
        self.slots
            .retain(|slot| slot.live != 0 || slot.view != 0 || slot.extra != 0);
    }

    /// Returns the state as bytes. Nearly all numbers are small, so each number has as few bytes as possible.
    pub fn pack(&self) -> Vec<u8> {
        let words = self.words();
        let mut packed = Vec::with_capacity(words.len() * 2);
        for mut word in words {
            while word >= CONTINUED {
                packed.push((word & (CONTINUED - 1) | CONTINUED).to_le_bytes()[0]);
                word >>= 7;
            }
            packed.push(word.to_le_bytes()[0]);
        }
        packed
    }

    pub fn unpack(packed: &[u8]) -> Self {
        let mut words = Vec::with_capacity(packed.len());
        let (mut word, mut shift) = (0, 0);
        for byte in packed.iter().copied().map(u32::from) {
            word |= (byte & (CONTINUED - 1)) << shift;
            shift += 7;
            if byte < CONTINUED {
                words.push(word);
                (word, shift) = (0, 0);
            }
        }
        Self::of(&words)
    }

    fn words(&self) -> Vec<u32> {
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

    fn of(packed: &[u32]) -> Self {
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
