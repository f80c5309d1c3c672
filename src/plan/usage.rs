//! The objects in use: the ContourConfigurations and stand-ins that a Contour container has read, or may read when it restarts. Objects in
//! use are not pruned.
//!
//! A *needed* object is recreated if it is deleted, and kept up to date. Only the pod templates of Slipway's own Deployment and its
//! ReplicaSets define the needed objects. A *held* object is only not deleted. Any object that may belong to a Contour of this
//! ContourDeployment can hold other objects.

use std::collections::{BTreeMap, BTreeSet};

use super::object::{Kind, NamespacedName, Object, Owner};
use super::observed::Observed;
use super::startup_inputs::{Contours, StartupInputs, references};
use super::views::{is_observed, wanted_replicas};

/// The objects in use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// The needed ContourConfigurations, by name.
    pub configurations: BTreeMap<String, StartupInputs>,
    /// The needed stand-ins. Their blackholes have the same names.
    pub stand_ins: BTreeSet<NamespacedName>,
    /// The names of the held ContourConfigurations, including the needed ones.
    held_configurations: BTreeSet<String>,
    /// The held stand-ins, including the needed ones.
    held_stand_ins: BTreeSet<NamespacedName>,
    /// Whether the Deployment controller or a ReplicaSet controller lags behind. Pods that are not visible yet may appear, so nothing may
    /// be deleted.
    pub uncertain: bool,
}

impl Usage {
    /// Collects the objects that the Deployment's template, its ReplicaSets with replicas and its pods use.
    pub fn of(observed: &Observed) -> Self {
        let mut usage = Self::default();
        let owner = observed.owner();
        let contours = Contours::of(observed);
        let mut controllers = contours.deployment.into_iter().chain(contours.all_replica_sets());
        usage.uncertain = controllers.any(|object| !is_observed(object));
        for inputs in contours.templates().filter_map(StartupInputs::of_template) {
            usage.need(&owner, &inputs);
        }
        let may_start_pods = |set: &&Object| wanted_replicas(set) != Some(0);
        let sets = contours.all_replica_sets().filter(may_start_pods);
        let said = sets.filter_map(StartupInputs::of_template);
        for inputs in said.chain(contours.all_pods().filter_map(StartupInputs::of_pod)) {
            usage.hold(&inputs);
        }
        // The configuration itself shows its references, even if the annotation of a pod was changed.
        for configuration in observed.of_kind(Kind::ContourConfiguration) {
            if let Some(spec) = configuration.spec()
                && usage.held_configurations.contains(configuration.name())
            {
                usage.held_stand_ins.extend(references(spec));
            }
        }
        usage
    }

    /// Reports whether a container may read this object, or an object that a container may read depends on this object.
    pub fn holds(&self, observed: &Observed, object: &Object) -> bool {
        match object.kind {
            Kind::ContourConfiguration => self.uncertain || self.held_configurations.contains(object.name()),
            Kind::ExtensionService => self.holds_name(object.namespace(), object.name()),
            // A blackhole is held as long as a stand-in of the same name exists.
            Kind::Service if object.has_our_finalizer() => observed
                .object(Kind::ExtensionService, object.namespace(), object.name())
                .is_some(),
            _ => false,
        }
    }

    /// Reports whether a pod or a ReplicaSet uses a stand-in of this name.
    pub fn holds_name(&self, namespace: &str, name: &str) -> bool {
        self.uncertain || self.held_stand_ins.contains(&NamespacedName::new(namespace, name))
    }

    /// Adds the inputs that the plan names.
    pub fn add_inputs(&mut self, inputs: &StartupInputs) {
        self.hold(inputs);
        self.stand_ins.extend(references(&inputs.spec));
        self.configurations.insert(inputs.configuration.clone(), inputs.clone());
    }

    /// Adds the inputs from one of Slipway's templates. The inputs are needed only if they match the configuration's name, which cannot be
    /// changed. The annotation may have been changed, or come from another version of Slipway.
    fn need(&mut self, owner: &Owner, inputs: &StartupInputs) {
        if inputs.is_intact(owner) {
            self.add_inputs(inputs);
        } else {
            self.hold(inputs);
        }
    }

    fn hold(&mut self, inputs: &StartupInputs) {
        self.held_configurations.insert(inputs.configuration.clone());
        self.held_stand_ins.extend(inputs.stand_ins());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::api::vocabulary::{FINALIZER, annotations, labels};
    use crate::plan::names::{hash, hash_json};
    use crate::plan::operand::tests;

    #[test]
    fn usage_holds_what_a_container_may_read_and_its_blackhole() {
        let object = |kind, name: &str| {
            let metadata = json!({"namespace": "auth", "name": name, "finalizers": [FINALIZER]});
            Object::from_json(kind, json!({"metadata": metadata})).expect("an object")
        };
        let mut observed = tests::observed(&json!({}));
        let stand_in = object(Kind::ExtensionService, "used");
        observed.objects.insert(stand_in.key(), Arc::new(stand_in.clone()));
        let mut usage = Usage::default();
        usage.add_inputs(&StartupInputs {
            configuration: "used".to_owned(),
            stand_ins: vec!["auth/used".to_owned()],
            ..StartupInputs::default()
        });
        for (kind, name, held, held_if_uncertain) in [
            (Kind::ContourConfiguration, "used", true, true),
            (Kind::ContourConfiguration, "other", false, true),
            (Kind::ExtensionService, "used", true, true),
            (Kind::ExtensionService, "other", false, true),
            (Kind::Service, "used", true, true),
            (Kind::Service, "other", false, false),
            (Kind::Deployment, "used", false, false),
        ] {
            for (uncertain, expected) in [(false, held), (true, held_if_uncertain)] {
                usage.uncertain = uncertain;
                let found = usage.holds(&observed, &object(kind, name));
                assert_eq!(found, expected, "{kind} {name}, uncertain: {uncertain}");
            }
        }
        let mut of_the_user = object(Kind::Service, "used");
        of_the_user.metadata.finalizers = None;
        assert!(!usage.holds(&observed, &of_the_user));
        let mut elsewhere = stand_in;
        elsewhere.metadata.namespace = Some("auth2".to_owned());
        usage.uncertain = false;
        assert!(!usage.holds(&observed, &elsewhere));
    }

    #[test]
    fn inputs_that_do_not_match_the_name_are_held_but_not_needed() {
        for (in_place_of, is_needed) in [(None, true), (Some("another"), false)] {
            let reference = json!({"namespace": "auth", "name": "edge-ext-auth-0000000000"});
            let spec = json!({"globalExtAuth": {"extensionRef": reference}});
            let content = hash_json(&spec);
            let parts = ["projectcontour", "edge", content.as_str()];
            let name = format!("edge-{}", hash(parts.into_iter().chain(in_place_of)));
            let inputs = json!({"configuration": name, "spec": spec, "standIns": ["auth/edge-ext-auth-0000000000"]});
            let annotations = json!({annotations::STARTUP_INPUTS: inputs.to_string()});
            let labels = json!({labels::OWNER_NAMESPACE: "projectcontour", labels::OWNER_NAME: "edge"});
            let deployment = json!({
                "metadata": {"namespace": "projectcontour", "name": "edge-contour", "generation": 1, "labels": labels},
                "spec": {"template": {"metadata": {"annotations": annotations}}},
                "status": {"observedGeneration": 1},
            });
            let deployment = Object::from_json(Kind::Deployment, deployment).expect("an object");
            let mut observed = tests::observed(&json!({}));
            observed.objects = [(deployment.key(), Arc::new(deployment))].into();
            let usage = Usage::of(&observed);
            assert_eq!(usage.configurations.contains_key(&name), is_needed);
            assert_eq!(!usage.stand_ins.is_empty(), is_needed);
            assert!(usage.holds_name("auth", "edge-ext-auth-0000000000") && !usage.uncertain);
            assert!(usage.held_configurations.contains(&name));
        }
    }

    #[test]
    fn a_held_configuration_holds_its_references() {
        let labels = json!({
            labels::OWNER_NAMESPACE: "projectcontour", labels::OWNER_NAME: "edge", labels::COMPONENT: "contour",
        });
        let object = |kind, name: &str, annotations: Value| {
            let reference = json!({"namespace": "auth", "name": format!("edge-ext-auth-of-{name}")});
            let spec = json!({"globalExtAuth": {"extensionRef": reference}});
            let metadata =
                json!({"namespace": "projectcontour", "name": name, "labels": labels, "annotations": annotations});
            Object::from_json(kind, json!({"metadata": metadata, "spec": spec})).expect("an object")
        };
        let inputs = json!({"configuration": "edge-held", "standIns": []}).to_string();
        let objects = [
            object(Kind::ContourConfiguration, "edge-held", json!({})),
            object(Kind::ContourConfiguration, "edge-other", json!({})),
            object(Kind::Pod, "pod", json!({annotations::STARTUP_INPUTS: inputs})),
        ];
        let mut observed = tests::observed(&json!({}));
        observed.objects = objects.map(|object| (object.key(), Arc::new(object))).into();
        let usage = Usage::of(&observed);
        assert!(usage.holds_name("auth", "edge-ext-auth-of-edge-held"));
        assert!(!usage.holds_name("auth", "edge-ext-auth-of-edge-other"));
        assert!(usage.configurations.is_empty() && usage.stand_ins.is_empty());
    }
}
