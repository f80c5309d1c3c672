//! The proof that the order of creation does not matter. The pieces are Contour's CRDs, the namespace of the authorization service, its
//! ExtensionService, its Service, the ContourDeployment and the operator. The proof creates the pieces in every order that the API
//! server admits.
//!
//! `make prove-orders` plays all orders, `make test` plays a few.

pub mod admission;
pub mod inventory;
pub mod masks;
pub mod order;
pub mod plan;
pub mod played;
pub mod proof;
pub mod real;
pub mod stage;
pub mod traffic;
