//! The choices of a seed: the orders that settle after each piece, the order in which pieces are recreated, the orders with real pods.

use fastrand::Rng;

use crate::orders::order::{Order, Piece};

/// The pace of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// All controllers settle before the next piece is created or deleted.
    Settling,
    /// The next piece is created as soon as the API server accepts it.
    AtOnce,
}

/// One order on the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderCase {
    /// The order.
    pub order: Order,
    /// The pace of the order.
    pub pace: Pace,
    /// The pieces that are deleted and recreated afterwards, one after the other.
    pub away: Vec<Piece>,
}

/// Returns every order once, in random sequence. Half of the orders settle after each piece; each order recreates all six pieces.
pub fn all(seed: u64) -> Vec<OrderCase> {
    let mut rng = Rng::with_seed(seed);
    let mut orders = Order::all();
    rng.shuffle(&mut orders);
    let paces = [Pace::Settling, Pace::AtOnce].into_iter().cycle();
    let cases = orders.into_iter().zip(paces).map(|(order, pace)| {
        let mut away = Piece::ALL.to_vec();
        rng.shuffle(&mut away);
        OrderCase { order, pace, away }
    });
    cases.collect()
}

/// Returns `count` orders. Each recreates a share of the six pieces, so that one of the orders recreates each piece.
pub fn sample(seed: u64, count: usize) -> Vec<OrderCase> {
    let mut cases = all(seed);
    cases.truncate(count);
    let away = cases.first().map(|case| case.away.clone()).unwrap_or_default();
    for (number, case) in cases.iter_mut().enumerate() {
        case.away = away.iter().skip(number).step_by(count).copied().collect();
    }
    cases
}

/// Returns `count` distinct orders.
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
    fn plan_depends_only_on_the_seed() {
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        assert_eq!(some(7, 24), some(7, 24));
    }

    #[test]
    fn all_plays_each_order_once_and_recreates_each_piece() {
        let cases = all(1);
        assert_eq!(cases.iter().map(|case| case.order).collect::<BTreeSet<_>>().len(), 150);
        assert_eq!(cases.iter().filter(|case| case.pace == Pace::Settling).count(), 75);
        for case in cases {
            assert_eq!(case.away.iter().collect::<BTreeSet<_>>().len(), Piece::ALL.len());
        }
    }

    #[test]
    fn sample_recreates_each_piece_exactly_once() {
        for count in [1, 2, 3, 4] {
            let away = sample(1, count).into_iter().flat_map(|case| case.away);
            let mut away: Vec<_> = away.collect();
            away.sort();
            assert_eq!(away, Piece::ALL, "{count} orders");
        }
    }
}
