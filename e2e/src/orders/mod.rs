//! The proof that the order does not matter: Contour's CRDs, the namespace of the authorization service, its ExtensionService, its
//! Service, the ContourDeployment and the operator come in every order that the API server admits.
//!
//! `make prove-orders` plays all of them, `make test` a few.

pub mod admission;
pub mod inventory;
pub mod masks;
pub mod order;
pub mod plan;
pub mod played;
pub mod real;
pub mod stage;
pub mod traffic;
