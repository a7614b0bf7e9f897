//! The store from outside: real files, real SQLite, its own threads.

mod damage;
mod model;
mod place;
mod rules;
mod serving;
