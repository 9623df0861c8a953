//! What a caller may do.

use std::fmt;

/// A role. Admin includes submit, submit includes read; worker is apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// See jobs, results and workers.
    Read,
    /// Create and cancel jobs, describe models, upload.
    Submit,
    /// Drain workers.
    Admin,
    /// Take tasks and hand in results.
    Worker,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Admin, Self::Worker];

    /// Its word in token files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
            Self::Worker => "worker",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of roles.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// No role.
    pub const NONE: Self = Self(0);
    /// Every role.
    pub const ALL: Self = Self(0b1111);

    /// This set with `role` and all that it includes.
    #[must_use]
    pub fn with(self, role: Role) -> Self {
        let bits = match role {
            Role::Read => 0b0001,
            Role::Submit => 0b0011,
            Role::Admin => 0b0111,
            Role::Worker => 0b1000,
        };
        Self(self.0 | bits)
    }

    /// Whether `role` is among them.
    pub fn allows(self, role: Role) -> bool {
        let bit = match role {
            Role::Read => 0b0001,
            Role::Submit => 0b0010,
            Role::Admin => 0b0100,
            Role::Worker => 0b1000,
        };
        self.0 & bit != 0
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            Role::ALL.into_iter().filter(|role| self.allows(*role)).map(Role::name).collect();
        f.write_str(&names.join("+"))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roles({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_includes_submit_includes_read_and_worker_is_apart() {
        let allowed = |role: Role| Roles::NONE.with(role).to_string();
        assert_eq!(allowed(Role::Read), "read");
        assert_eq!(allowed(Role::Submit), "read+submit");
        assert_eq!(allowed(Role::Admin), "read+submit+admin");
        assert_eq!(allowed(Role::Worker), "worker");
        assert_eq!(Roles::ALL.to_string(), "read+submit+admin+worker");
        assert_eq!(Role::ALL.map(|role| Role::parse(role.name())), Role::ALL.map(Some));
        assert_eq!(Role::parse("Admin"), None);
    }
}
