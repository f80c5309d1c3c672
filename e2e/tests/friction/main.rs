//! The other controllers and webhooks of a real cluster neither cause endless writes by Slipway, nor stop Slipway.
//!
//! The API server and the operator are real; the kubelet and Contour are simulated. Admission policies change, refuse and strip
//! written objects. Another controller reverts Slipway's changes.
//!
//! Each case has its own namespaces. Most cases run in parallel, because they mostly wait. Then the two cases that affect every
//! ContourDeployment run one by one. The tests have the same requirements as the tests of `api_server`.

mod contested;
mod ground;
mod ledger;
mod never_taken;
mod policy;
mod refused;
mod scene;
mod schema;
mod taken;

use std::process::ExitCode;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Conclusion, Trial};
use slipway_e2e::lab::Lab;

use crate::ground::{Ground, Turn};

/// The function that runs a case in its namespaces.
type Case = for<'a> fn(&'a Lab) -> LocalBoxFuture<'a, anyhow::Result<()>>;

/// Builds cases: the name of the test (module and function), the name of the namespace, whether other cases may run at the same
/// time, and the function.
macro_rules! cases {
    ($turn:expr, $($module:ident::$case:ident: $namespace:literal;)*) => {
        [$((concat!(stringify!($module), "::", stringify!($case)), $namespace, $turn, (|lab| $module::$case(lab).boxed_local()) as Case)),*]
    };
}

fn main() -> ExitCode {
    let beside_others = cases! { Turn::BesideOthers,
        taken::an_edge_without_interference_stays_quiet: "none";
        taken::rewritten_images_are_accepted: "images";
        taken::injected_containers_and_variables_are_accepted: "injected";
        taken::an_injected_toleration_is_accepted: "toleration";
        taken::an_added_label_is_accepted: "label";
        taken::an_overwritten_label_is_accepted: "relabel";
        taken::removed_annotations_are_accepted: "strip";
        taken::a_removed_field_is_accepted: "drop";
        never_taken::a_changed_stand_in_spec_starts_no_contour: "standin";
        never_taken::a_changed_blackhole_selector_starts_no_contour: "blackhole";
        never_taken::a_configuration_changed_in_the_dry_run_starts_no_contour: "firstconf";
        never_taken::a_configuration_changed_at_creation_starts_no_contour: "written";
        never_taken::a_later_configuration_changed_by_others_is_not_rolled_out: "laterconf";
        never_taken::a_changed_contour_command_starts_no_envoy: "command";
        never_taken::a_changed_contour_account_starts_no_envoy: "account";
        refused::a_required_label_moves_the_stand_in_home: "required";
        refused::a_quota_on_services_moves_the_stand_in_home: "services";
        refused::a_quota_on_extension_services_moves_the_stand_in_home: "extensions";
        refused::a_stand_in_changed_by_others_moves_home: "changed";
        refused::a_refused_update_does_not_move_the_stand_in: "update";
        refused::an_unreachable_webhook_does_not_stall: "webhook";
        contested::a_contested_port_is_reported_and_retried_with_back_off: "fight";
        schema::an_unknown_value_in_the_status_is_replaced: "word";
    };
    let alone = cases! { Turn::Alone,
        taken::a_restarted_operator_accepts_all_changes_at_once: "restart";
        schema::a_new_crd_default_rolls_out_nothing: "newfield";
    };
    let arguments = Arguments::from_args();
    let ground = Ground::new().expect("the runtime starts");
    // Cases mostly wait, so all cases run at once, regardless of the number of processors.
    let first = run(&arguments, ground, beside_others.to_vec(), beside_others.len());
    let then = run(&arguments, ground, alone.to_vec(), 1);
    if first.has_failed() || then.has_failed() {
        ExitCode::from(101)
    } else {
        ExitCode::SUCCESS
    }
}

fn run(
    arguments: &Arguments,
    ground: &'static Ground,
    cases: Vec<(&'static str, &'static str, Turn, Case)>,
    at_once: usize,
) -> Conclusion {
    let arguments = Arguments {
        test_threads: arguments.test_threads.or(Some(at_once)),
        ..arguments.clone()
    };
    let trials = cases.into_iter().map(|(name, namespace, turn, case)| {
        Trial::test(name, move || {
            ground.run(namespace, turn, case);
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect())
}
