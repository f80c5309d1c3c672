//! The other controllers and webhooks of a real cluster: they neither make Slipway write without end, nor stop it. A real API
//! server with policies that change, refuse and strip what is written, and with somebody who changes things back; the real
//! operator; a played kubelet and Contour.
//!
//! Each case has namespaces of its own, and they run side by side, because most of their time is waiting; then, one by one, the
//! two that concern every ContourDeployment. Needs what the tests of `api_server` need.

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

/// What a case does in its namespaces.
type Case = for<'a> fn(&'a Lab) -> LocalBoxFuture<'a, anyhow::Result<()>>;

/// Cases: the name of the namespace, which begins the test's name; what holds; who else may run.
macro_rules! cases {
    ($turn:expr, $($module:ident::$case:ident: $namespace:literal;)*) => {
        [$((concat!(stringify!($module), "::", stringify!($case)), $namespace, $turn, (|lab| $module::$case(lab).boxed_local()) as Case)),*]
    };
}

fn main() -> ExitCode {
    let beside_others = cases! { Turn::BesideOthers,
        taken::nothing_is_in_the_way: "none";
        taken::images_are_rewritten_to_a_mirror: "images";
        taken::a_sidecar_is_injected: "sidecar";
        taken::an_environment_variable_is_injected: "environment";
        taken::a_toleration_is_injected_beside_ours: "toleration";
        taken::a_toleration_without_effect_is_specified: "effect";
        taken::a_label_is_put_on_everything: "label";
        taken::a_label_of_ours_is_overwritten_on_everything: "relabel";
        taken::annotations_are_stripped: "strip";
        taken::a_field_of_ours_is_dropped: "drop";
        never_taken::the_spec_of_a_stand_in: "standin";
        never_taken::the_selector_of_a_blackhole: "blackhole";
        never_taken::the_spec_of_the_first_configuration: "firstconf";
        never_taken::the_spec_of_a_configuration_as_it_is_written: "written";
        never_taken::the_spec_of_a_later_configuration: "laterconf";
        never_taken::contour_s_command_and_arguments: "command";
        never_taken::contour_s_account_selector_volumes_and_mounts: "account";
        refused::a_label_is_required_in_the_service_s_namespace: "required";
        refused::no_services_are_left_in_the_service_s_namespace: "services";
        refused::no_extension_services_are_left_in_the_service_s_namespace: "extensions";
        refused::stand_ins_are_changed_in_the_service_s_namespace: "changed";
        refused::an_update_of_the_stand_in: "update";
        refused::a_webhook_of_the_service_s_namespace_does_not_answer: "webhook";
        contested::somebody_keeps_changing_a_port_back: "fight";
        schema::a_word_that_is_not_known_is_in_a_stored_status: "word";
    };
    let alone = cases! { Turn::Alone,
        taken::everything_at_once_and_the_operator_starts_again: "restart";
        schema::a_default_comes_to_the_crd_of_configurations: "newfield";
    };
    let arguments = Arguments::from_args();
    let ground = Ground::new().expect("a runtime for the tests");
    // They wait, most of the time: not as many as there are processors, but all.
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
