//! The objects of a stand-in.

use serde_json::{Map, Value};

use super::decision::PointsAt;
use super::{Facts, StandIn, blackhole, trial};
use crate::api::contour::ExtensionServiceSpec;
use crate::api::vocabulary::{FINALIZER, annotations, labels};
use crate::plan::object::{Kind, NamespacedName, Object, Owner};
use crate::plan::write::Desired;

impl PointsAt {
    /// Returns the spec, apart from weights, of the stand-in of this name with this target.
    pub fn spec(&self, name: &str, pinned: &Facts) -> ExtensionServiceSpec {
        match self {
            Self::Copy(proven, _) => proven.spec.clone(),
            Self::Blackhole(_) => ExtensionServiceSpec(blackhole::spec(name, pinned)),
        }
    }
}

impl StandIn {
    /// Returns the ExtensionService of the stand-in.
    pub fn object(&self, owner: &Owner) -> Desired {
        let ExtensionServiceSpec(mut spec) = self.points_at.spec(&self.id.name, &self.persisted.pinned);
        if let Some(nudge) = &self.persisted.nudge {
            nudge.put_into(&mut spec);
        }
        let mut object = Object {
            kind: Kind::ExtensionService,
            metadata: self.metadata(owner, Kind::ExtensionService),
            content: Map::from_iter([("spec".to_owned(), Value::Object(spec))]),
            creation_entry: None,
        };
        object.annotate(annotations::PERSISTED_STATE, self.persisted.to_text());
        Desired::whole_spec(object)
    }

    /// Returns the blackhole of the stand-in.
    pub fn blackhole(&self, owner: &Owner) -> Desired {
        blackhole::service(self.metadata(owner, Kind::Service))
    }

    /// Returns the trial of the user's ExtensionService, if a trial is needed.
    pub fn trial(&self, owner: &Owner) -> Option<Desired> {
        let reference = self.persisted.reference.as_ref()?;
        trial::desired(owner, reference, self.tried.as_ref()?)
    }

    fn metadata(&self, owner: &Owner, kind: Kind) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        let NamespacedName { namespace, name } = &self.id;
        let mut metadata = owner.metadata(kind, namespace, name);
        metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(labels::ROLE.to_owned(), self.role.slug().to_owned());
        metadata
    }
}
