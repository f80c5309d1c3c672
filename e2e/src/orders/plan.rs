//! What a seed chooses: which orders settle in between, in which order pieces go again, which orders get real pods.

use fastrand::Rng;

use crate::orders::order::{Order, Piece};

/// Whether everybody may do what there is to do before the next piece comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// They may.
    Settling,
    /// The next piece comes as soon as the API server takes it.
    AtOnce,
}

/// One order, as it is played on the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The order.
    pub order: Order,
    /// Its pace.
    pub pace: Pace,
    /// The pieces that go and come again afterwards, one after the other.
    pub away: Vec<Piece>,
}

/// Every order once, in any sequence; half of them settle in between, and all six pieces go and come again.
pub fn all(seed: u64) -> Vec<Case> {
    let mut rng = Rng::with_seed(seed);
    let mut orders = Order::all();
    rng.shuffle(&mut orders);
    let paces = [Pace::Settling, Pace::AtOnce].into_iter().cycle();
    let cases = orders.into_iter().zip(paces).map(|(order, pace)| {
        let mut away = Piece::ALL.to_vec();
        rng.shuffle(&mut away);
        Case { order, pace, away }
    });
    cases.collect()
}

/// So many orders, in each of which a share of the six pieces goes and comes again, so that each does in one of them.
pub fn sample(seed: u64, count: usize) -> Vec<Case> {
    let mut cases = all(seed);
    cases.truncate(count);
    let away = cases.first().map(|case| case.away.clone()).unwrap_or_default();
    for (number, case) in cases.iter_mut().enumerate() {
        case.away = away.iter().skip(number).step_by(count).copied().collect();
    }
    cases
}

/// So many different orders.
pub fn some(seed: u64, count: usize) -> Vec<Order> {
    let mut orders = Order::all();
    Rng::with_seed(seed).shuffle(&mut orders);
    orders.truncate(count);
    orders
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_makes_the_same_plan_again_and_another_one_does_not() {
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        assert_eq!(some(7, 24), some(7, 24));
    }

    #[test]
    fn every_order_is_played_once_half_of_them_settling_and_every_piece_goes_again() {
        let cases = all(1);
        assert_eq!(cases.iter().map(|case| case.order).collect::<BTreeSet<_>>().len(), 150);
        assert_eq!(cases.iter().filter(|case| case.pace == Pace::Settling).count(), 75);
        for case in cases {
            assert_eq!(case.away.iter().collect::<BTreeSet<_>>().len(), Piece::ALL.len());
        }
    }

    #[test]
    fn in_a_sample_every_piece_goes_again_in_one_of_the_orders() {
        for count in [1, 2, 3, 4] {
            let away = sample(1, count).into_iter().flat_map(|case| case.away);
            let mut away: Vec<_> = away.collect();
            away.sort();
            assert_eq!(away, Piece::ALL, "{count} orders");
        }
    }
}
