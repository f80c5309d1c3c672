//! The pieces of an order, and every order that the API server admits.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};

/// One of the six pieces. Each has a letter for the name of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    /// Contour's CRDs: `C`.
    ContourCrds,
    /// The namespace of the authorization service: `N`.
    Namespace,
    /// The ExtensionService: `E`.
    ExtensionService,
    /// The Service that the ExtensionService references, with endpoints: `S`.
    Service,
    /// The ContourDeployment: `D`.
    ContourDeployment,
    /// The running operator: `O`.
    Operator,
}

use Piece::{ContourCrds, ContourDeployment, ExtensionService, Namespace, Operator, Service};

impl Piece {
    /// All pieces.
    pub const ALL: [Self; 6] = [
        ContourCrds,
        Namespace,
        ExtensionService,
        Service,
        ContourDeployment,
        Operator,
    ];

    /// Returns the pieces that must exist before this piece. The API server rejects an object of an unknown kind, or in a namespace that
    /// does not exist. The deletion of such a piece also deletes this piece.
    pub fn needs(self) -> &'static [Self] {
        match self {
            ExtensionService => &[ContourCrds, Namespace],
            Service => &[Namespace],
            ContourCrds | Namespace | ContourDeployment | Operator => &[],
        }
    }

    /// Returns the pieces that are deleted with this piece.
    pub fn dependents(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |piece| piece.needs().contains(&self))
    }

    /// Returns the piece's letter.
    pub fn letter(self) -> char {
        match self {
            ContourCrds => 'C',
            Namespace => 'N',
            ExtensionService => 'E',
            Service => 'S',
            ContourDeployment => 'D',
            Operator => 'O',
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ContourCrds => "Contour's CRDs",
            Namespace => "the namespace",
            ExtensionService => "the ExtensionService",
            Service => "its Service",
            ContourDeployment => "the ContourDeployment",
            Operator => "the operator",
        })
    }
}

/// The pieces that exist.
pub type Pieces = BTreeSet<Piece>;

/// An order that the API server admits. The order's name consists of the letters of its pieces: `CNSEDO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order([Piece; 6]);

impl Order {
    /// The order in which each piece finds the pieces that it uses.
    pub const BEST: Self = Self([
        ContourCrds,
        Namespace,
        Service,
        ExtensionService,
        ContourDeployment,
        Operator,
    ]);

    /// Returns every admitted order, sorted by name.
    pub fn all() -> Vec<Self> {
        let mut orders = vec![Vec::new()];
        for _ in Piece::ALL {
            let longer = orders.iter().flat_map(|order: &Vec<Piece>| {
                let next = Piece::ALL.into_iter().filter(|piece| {
                    !order.contains(piece) && piece.needs().iter().all(|needed| order.contains(needed))
                });
                next.map(|piece| [&order[..], &[piece]].concat())
            });
            orders = longer.collect();
        }
        let mut orders: Vec<_> = orders
            .into_iter()
            .map(|order| Self(order.try_into().expect("each of the six once")))
            .collect();
        orders.sort_by_key(Self::to_string);
        orders
    }

    /// Returns the pieces from first to last.
    pub fn pieces(self) -> [Piece; 6] {
        self.0
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| write!(f, "{}", piece.letter()))
    }
}

impl FromStr for Order {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let piece = |letter: char| Piece::ALL.into_iter().find(|piece| piece.letter() == letter);
        let pieces: Option<Vec<_>> = name.chars().map(piece).collect();
        let pieces = pieces.with_context(|| format!("{name}: an order consists of the letters C N E S D O"))?;
        let Ok(order) = <[Piece; 6]>::try_from(pieces) else {
            bail!("{name}: an order has six letters")
        };
        let order = Self(order);
        ensure!(
            Self::all().contains(&order),
            "{name} is not admitted: each letter once, C and N before E, N before S"
        );
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_returns_150_distinct_orders() {
        let orders = Order::all();
        assert_eq!(orders.len(), 150);
        let names: BTreeSet<_> = orders.iter().map(Order::to_string).collect();
        assert_eq!(names.len(), 150);
        assert!(orders.contains(&Order::BEST));
    }

    #[test]
    fn parse_accepts_exactly_the_admitted_orders() {
        for order in Order::all() {
            assert_eq!(order.to_string().parse::<Order>().expect("its own name"), order);
        }
        for name in ["ECNSDO", "CENSDO", "CSNEDO", "CNSED", "CNSEDX", "CCNSED"] {
            assert!(name.parse::<Order>().is_err(), "{name}");
        }
    }

    #[test]
    fn deletion_of_a_piece_deletes_its_dependents() {
        let along = |piece: Piece| piece.dependents().collect::<Vec<_>>();
        assert_eq!(along(Namespace), [ExtensionService, Service]);
        assert_eq!(along(ContourCrds), [ExtensionService]);
        assert!(along(Operator).is_empty());
    }
}
