//! The interest of each ContourDeployment in the sets of referenced objects, as an index in both directions: from a ContourDeployment to
//! the names that it asks for, and from a name to the ContourDeployments that ask for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::cache::StoreId;
use crate::plan::{Kind, NamespacedName};

/// The needed sets. For each set of [`super::cache::Scope::AllIn`], the names that are asked for.
pub type Needs = BTreeMap<StoreId, BTreeSet<String>>;

/// The needs of all ContourDeployments.
#[derive(Default)]
pub struct Interest {
    needs: HashMap<NamespacedName, Needs>,
    sets: HashMap<StoreId, Askers>,
}

/// The ContourDeployments that need a set.
#[derive(Default)]
struct Askers {
    all: BTreeSet<NamespacedName>,
    by_name: BTreeMap<String, BTreeSet<NamespacedName>>,
}

/// The effect of new needs of a ContourDeployment.
pub struct Change {
    /// The sets that the ContourDeployment needs now or needed before.
    pub sets: BTreeSet<StoreId>,
    /// Whether the ContourDeployment asks for a name or a set that it did not ask for before.
    pub has_grown: bool,
}

impl Interest {
    /// Replaces the needs of a ContourDeployment.
    pub fn set(&mut self, whose: &NamespacedName, wanted: Needs) -> Change {
        let before = self.needs.remove(whose).unwrap_or_default();
        let is_known = |(id, names): (&StoreId, &BTreeSet<String>)| {
            let known = before.get(id);
            known.is_some_and(|known| names.is_subset(known))
        };
        let change = Change {
            sets: before.keys().chain(wanted.keys()).cloned().collect(),
            has_grown: !wanted.iter().all(is_known),
        };
        if before != wanted {
            self.take_out(whose, &before);
            self.put_in(whose, &wanted);
        }
        if !wanted.is_empty() {
            self.needs.insert(whose.clone(), wanted);
        }
        change
    }

    /// Returns the ContourDeployments that need this set.
    pub fn needing(&self, id: &StoreId) -> impl Iterator<Item = &NamespacedName> {
        self.sets.get(id).into_iter().flat_map(|askers| &askers.all)
    }

    /// Returns the ContourDeployments that ask for this name in this set.
    pub fn asking(&self, id: &StoreId, name: &str) -> impl Iterator<Item = &NamespacedName> {
        let askers = self.sets.get(id).and_then(|askers| askers.by_name.get(name));
        askers.into_iter().flatten()
    }

    /// Returns the ContourDeployments that need any set in this namespace.
    pub fn around(&self, namespace: &str) -> BTreeSet<NamespacedName> {
        let kinds = [Kind::ExtensionService, Kind::Service, Kind::EndpointSlice];
        let all = kinds.map(|kind| StoreId::all_in(kind, namespace));
        let sets = all.iter().cloned().chain([StoreId::owned_in(Kind::Secret, namespace)]);
        sets.flat_map(|id| self.needing(&id).cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Reports whether any ContourDeployment needs this set.
    pub fn is_needed(&self, id: &StoreId) -> bool {
        self.sets.contains_key(id)
    }

    /// Returns the names that are asked for in this set.
    pub fn names(&self, id: &StoreId) -> BTreeSet<String> {
        let askers = self.sets.get(id).into_iter();
        askers.flat_map(|askers| askers.by_name.keys().cloned()).collect()
    }

    fn put_in(&mut self, whose: &NamespacedName, needs: &Needs) {
        for (id, names) in needs {
            let askers = self.sets.entry(id.clone()).or_default();
            askers.all.insert(whose.clone());
            for name in names {
                askers.by_name.entry(name.clone()).or_default().insert(whose.clone());
            }
        }
    }

    fn take_out(&mut self, whose: &NamespacedName, needs: &Needs) {
        for (id, names) in needs {
            let Some(askers) = self.sets.get_mut(id) else { continue };
            askers.all.remove(whose);
            for name in names {
                if let Some(asking) = askers.by_name.get_mut(name) {
                    asking.remove(whose);
                    if asking.is_empty() {
                        askers.by_name.remove(name);
                    }
                }
            }
            if askers.all.is_empty() {
                self.sets.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_of_the_index_always_agree() {
        let set = |namespace: &str| StoreId::all_in(Kind::Service, namespace);
        let needs = |names: &[(&str, &[&str])]| -> Needs {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            names.iter().map(|(at, names)| (set(at), owned(names))).collect()
        };
        let [a, b] = ["a", "b"].map(|name| NamespacedName::new("home", name));
        let mut interest = Interest::default();
        let asking = |interest: &Interest, at: &str, name: &str| interest.asking(&set(at), name).count();
        let change = interest.set(&a, needs(&[("auth", &["x", "y"])]));
        assert!(change.has_grown && change.sets == [set("auth")].into());
        assert!(interest.set(&b, needs(&[("auth", &["x"]), ("rate", &[])])).has_grown);
        assert_eq!((asking(&interest, "auth", "x"), asking(&interest, "auth", "y")), (2, 1));
        assert_eq!(interest.needing(&set("rate")).collect::<Vec<_>>(), [&b]);
        assert_eq!(interest.around("auth").len(), 2);
        assert_eq!(interest.names(&set("auth")), ["x".to_owned(), "y".to_owned()].into());
        // Fewer names than before, and the same names again.
        for _ in 0..2 {
            assert!(!interest.set(&a, needs(&[("auth", &["y"])])).has_grown);
            assert_eq!((asking(&interest, "auth", "x"), asking(&interest, "auth", "y")), (1, 1));
        }
        assert!(interest.set(&a, needs(&[("auth", &["x", "y"])])).has_grown);
        for whose in [&a, &b] {
            assert!(!interest.set(whose, Needs::new()).has_grown);
        }
        assert!(interest.sets.is_empty() && interest.needs.is_empty());
    }
}
