//! The resources that an operator writes: types, validation, precise errors
