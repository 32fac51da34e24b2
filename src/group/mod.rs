//! Group coordinators as pure machines: decisions return records and a reply, replaying a record changes the state.
