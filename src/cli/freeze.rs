//! Runs `freeze` and `thaw`: asks the proxy, and reports what is held or released.

use super::args::{pick, who};
use super::failure::Failure;
use super::output::{Form, print, print_json};
use crate::api::client::Client;
use crate::api::{FreezeRequest, Frozen, ThawRequest, Thawed};
use crate::domain::freeze::What;

async fn known(client: &Client, service: Option<&str>) -> Result<String, Failure> {
    let status = client.status().await?;
    let known: Vec<_> = status.services.keys().map(String::as_str).collect();
    pick(service, &known).map(str::to_owned).map_err(Failure::Usage)
}

/// Holds requests.
pub(super) async fn freeze(
    client: &Client,
    service: Option<&str>,
    request: FreezeRequest,
    form: Form,
) -> Result<(), Failure> {
    let service = known(client, service).await?;
    let frozen = client.freeze(&service, &FreezeRequest { by: Some(who()), ..request }).await?;
    match form {
        Form::Json => print_json(&frozen),
        Form::Text => print(&frozen_sentence(&frozen)),
    }
    Ok(())
}

/// Releases the held requests.
pub(super) async fn thaw(client: &Client, service: Option<&str>, dry_run: bool, form: Form) -> Result<(), Failure> {
    let service = known(client, service).await?;
    let thawed = client.thaw(&service, &ThawRequest { of: None, dry_run, by: Some(who()) }).await?;
    match form {
        Form::Json => print_json(&thawed),
        Form::Text => print(&thawed_sentence(&thawed)),
    }
    Ok(())
}

fn frozen_sentence(frozen: &Frozen) -> String {
    let Frozen { service, what, for_seconds, quiet, dry_run } = frozen;
    let whose = match what {
        What::Writes => "writes",
        What::All => "all requests",
    };
    if *dry_run {
        return format!("{service}: would hold {whose} for {for_seconds}s; nothing was changed\n");
    }
    let in_flight = match quiet {
        Some(true) => "; none is in flight any more",
        Some(false) => "; some that were in flight before are not done yet",
        None => "",
    };
    format!("{service}: {whose} are held for {for_seconds}s, or until `cutover thaw`{in_flight}\n")
}

fn thawed_sentence(thawed: &Thawed) -> String {
    match thawed {
        Thawed { service, was_frozen: false, .. } => format!("{service}: not frozen; nothing was changed\n"),
        Thawed { service, held, dry_run: true, .. } => format!("{service}: would let {held} held requests go\n"),
        Thawed { service, held, .. } => format!("{service}: thawed, {held} held requests are let go in turn\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_sentence() {
        let frozen =
            Frozen { service: "app".into(), what: What::Writes, for_seconds: 60.0, quiet: None, dry_run: true };
        assert_eq!(frozen_sentence(&frozen), "app: would hold writes for 60s; nothing was changed\n");
        let frozen = Frozen { quiet: Some(true), dry_run: false, ..frozen };
        let want = "app: writes are held for 60s, or until `cutover thaw`; none is in flight any more\n";
        assert_eq!(frozen_sentence(&frozen), want);
        let thawed = Thawed { service: "app".into(), was_frozen: true, held: 3, dry_run: false };
        assert_eq!(thawed_sentence(&thawed), "app: thawed, 3 held requests are let go in turn\n");
        let thawed = Thawed { was_frozen: false, held: 0, ..thawed };
        assert_eq!(thawed_sentence(&thawed), "app: not frozen; nothing was changed\n");
    }
}
