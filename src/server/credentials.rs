//! The user and the groups that processes of the server run as.

use mlua::{Table, Value};
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};
use nix::unistd::{geteuid, getgrouplist, getgroups, setgroups, setresgid, setresuid};

use crate::amount::integer;
use crate::binding::{self, Fault, Reply};
use crate::sys::os::error_text;

/// The user and the groups of a process, looked up once: workers need no user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// What the options say, for messages.
    name: String,
    uid: Uid,
    gid: Gid,
    supplementary: Vec<Gid>,
}

impl Credentials {
    /// Reads the options `user` and `group`: without a group, the user's own ones; without a user, this
    /// process's user. `None` if neither is given.
    ///
    /// # Errors
    /// Misuse if there is no such user or group.
    pub fn read(table: &Table) -> Reply<Option<Self>> {
        let (user, group) = (table.get("user")?, table.get("group")?);
        let what = |name| format!("Option \"{name}\"");
        let user = user_of(&user, &what("user"))?;
        let group = group_of(&group, &what("group"))?;
        let (uid, entry) = match user {
            Some(user) => user,
            None if group.is_none() => return Ok(None),
            None => (geteuid(), None),
        };
        let gid = group.or(entry.as_ref().map(|entry| entry.gid)).ok_or_else(|| {
            Fault::misuse(format!(
                "Option \"user\": {uid} is not in the user database; option \"group\" is required"
            ))
        })?;
        let supplementary = match &entry {
            Some(entry) => std::ffi::CString::new(entry.name.as_str())
                .map_err(|_| Errno::EINVAL)
                .and_then(|name| getgrouplist(&name, gid))?,
            None => vec![gid],
        };
        let name = entry.map_or_else(|| uid.to_string(), |entry| entry.name);
        Ok(Some(Credentials { name, uid, gid, supplementary }))
    }

    /// The user.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// This process becomes that user, irrevocably.
    ///
    /// # Errors
    /// A sentence that names the user and the reason.
    pub fn assume(&self) -> Result<(), String> {
        if self.is_current() {
            return Ok(());
        }
        setgroups(&self.supplementary)
            .and_then(|()| setresgid(self.gid, self.gid, self.gid))
            .and_then(|()| setresuid(self.uid, self.uid, self.uid))
            .map_err(|errno| self.refusal(errno))
    }

    /// Whether this process, and what it forks, may become that user.
    ///
    /// # Errors
    /// A sentence that names the user and the reason.
    pub fn may_assume(&self) -> Result<(), String> {
        if self.is_current() {
            return Ok(());
        }
        // This changes nothing, but needs the same right.
        getgroups().and_then(|groups| setgroups(&groups)).map_err(|errno| self.refusal(errno))
    }

    /// Without rights to change anything, being that user already is enough.
    fn is_current(&self) -> bool {
        !geteuid().is_root()
            && (geteuid(), nix::unistd::getegid()) == (self.uid, self.gid)
            && nix::unistd::getuid() == self.uid
    }

    fn refusal(&self, errno: Errno) -> String {
        let reason = error_text::describe(errno as i32);
        format!("Could not become user \"{}\": {reason}", self.name)
    }
}

/// The user in an option or field, by name or number, with its entry in the user database. `what` names
/// the option.
///
/// # Errors
/// Misuse if there is no such user.
pub fn user_of(value: &Value, what: &str) -> Reply<Option<(Uid, Option<User>)>> {
    let Some(name) = name(value, what)? else { return Ok(None) };
    if let Some(entry) = User::from_name(&name)? {
        return Ok(Some((entry.uid, Some(entry))));
    }
    let Ok(number) = name.parse() else {
        return Err(Fault::misuse(format!("{what}: there is no user \"{name}\"")));
    };
    Ok(Some((Uid::from_raw(number), User::from_uid(Uid::from_raw(number))?)))
}

/// The group in an option or field, by name or number. `what` names the option.
///
/// # Errors
/// Misuse if there is no such group.
pub fn group_of(value: &Value, what: &str) -> Reply<Option<Gid>> {
    let Some(name) = name(value, what)? else { return Ok(None) };
    if let Some(entry) = Group::from_name(&name)? {
        return Ok(Some(entry.gid));
    }
    let number = name.parse().map(Gid::from_raw);
    Ok(Some(number.map_err(|_| Fault::misuse(format!("{what}: there is no group \"{name}\"")))?))
}

fn name(value: &Value, what: &str) -> Reply<Option<String>> {
    match value {
        Value::Nil => Ok(None),
        Value::String(name) => Ok(Some(name.to_string_lossy())),
        other => match integer(other) {
            Some(number) => Ok(Some(number.to_string())),
            None => {
                let kind = binding::kind(other);
                Err(Fault::misuse(format!("{what} must be a name or an integer, not a {kind}")))
            }
        },
    }
}
