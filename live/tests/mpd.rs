//! MPD's own server, on each runtime.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::mpd::{Ack, Answer, Command, Mpd, Request, Subsystem};
use sonnette::{Mode, Reason, Timeouts};
use sonnette_conformance::subject::Subject;
use sonnette_driver::{Connect, End, Error};
use sonnette_live::Server;
use sonnette_std::Socket;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Who causes what the client hears of.
type Other = sonnette_std::Client<Mpd, Socket>;

fn command(words: &str) -> Request {
    let mut words = words.split(' ');
    let name = Command::new(words.next().unwrap());
    words.fold(name, Command::arg).into()
}

/// More than the server sends at once, with what looks like answers in it.
fn picture() -> Vec<u8> {
    let mut picture = b"\x89PNG\r\n\x1a\n\nOK\nACK [5@0] {} x\nbinary: 99\nOK\n".to_vec();
    picture.extend((0..3_000_000_u32).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()));
    picture
}

struct Scene {
    server: Server,
    other: Other,
}

/// A server that has looked through its music.
fn scene(settings: &str) -> Scene {
    let server = Server::mpd(settings, &picture());
    let mut other = sonnette_std::Connect::new().tcp(Mpd::new(), server.address).unwrap();
    if settings.is_empty() {
        while other.call(command("status")).unwrap().get("updating_db").is_some() {}
    }
    Scene { server, other }
}

fn timeouts() -> Timeouts {
    Timeouts { reply: Some(Duration::from_secs(60)), ..Timeouts::default() }
}

/// What changed, until `wanted` has: entered again each time the server has ended the mode.
async fn wait_for(client: &mut impl Subject<Mpd>, wanted: &[Subsystem]) -> Vec<Subsystem> {
    let mut told = Vec::new();
    while !wanted.iter().all(|wanted| told.contains(wanted)) {
        match client.next_notification().await.unwrap() {
            Some(subsystem) => told.push(subsystem),
            None => drop(client.enter(vec![]).await.unwrap()),
        }
    }
    told
}

async fn leave(client: &mut impl Subject<Mpd>) -> Vec<Subsystem> {
    client.leave().await.unwrap();
    assert_eq!(client.call(command("ping")).await.unwrap(), Answer::default());
    let mut told = Vec::new();
    while let Some(subsystem) = client.next_notification().await.unwrap() {
        told.push(subsystem);
    }
    told
}

async fn changes_are_told(client: &mut impl Subject<Mpd>, scene: &mut Scene) {
    client.enter(vec![]).await.unwrap();
    for words in ["random 1", "add tone.wav", "setvol 30"] {
        scene.other.call(command(words)).unwrap();
    }
    let wanted = [Subsystem::Options, Subsystem::Playlist, Subsystem::Mixer];
    let told = wait_for(client, &wanted).await;
    assert_eq!(told.len(), 3, "each once: {told:?}");
    leave(client).await;

    // What happens while nobody is in idle is told at once, in one group.
    for words in ["repeat 1", "add album/one.wav", "setvol 40"] {
        scene.other.call(command(words)).unwrap();
    }
    client.enter(vec![]).await.unwrap();
    let told: BTreeSet<String> = wait_for(client, &wanted).await.iter().map(Subsystem::to_string).collect();
    assert_eq!(told.into_iter().collect::<Vec<_>>(), ["mixer", "options", "playlist"]);
    assert_eq!(client.next_notification().await.unwrap(), None, "the mode has ended by itself");

    // Only what is asked for.
    client.enter(vec![Subsystem::Mixer]).await.unwrap();
    scene.other.call(command("random 0")).unwrap();
    scene.other.call(command("setvol 50")).unwrap();
    assert_eq!(client.next_notification().await.unwrap(), Some(Subsystem::Mixer));
    assert_eq!(client.next_notification().await.unwrap(), None);
}

/// The change has happened, and its notification is on its way or about to be, when the client leaves.
async fn leaving_crosses_a_change(client: &mut impl Subject<Mpd>, scene: &mut Scene) {
    let mut crossed = 0;
    for round in 0..200 {
        client.enter(vec![]).await.unwrap();
        scene.other.call(command(if round % 2 == 0 { "random 1" } else { "random 0" })).unwrap();
        let mut told = leave(client).await;
        crossed += told.len();
        if told.is_empty() {
            // The server read `noidle` first, and keeps it.
            client.enter(vec![]).await.unwrap();
            told = wait_for(client, &[Subsystem::Options]).await;
            told.extend(leave(client).await);
        }
        assert_eq!(told, [Subsystem::Options], "in round {round}, {crossed} of which crossed");
    }
}

async fn ringing(client: &mut impl Subject<Mpd>, scene: &mut Scene) {
    client.enter(vec![]).await.unwrap();
    // In the mode: leave, ask, enter again.
    assert_eq!(client.ring(command("status")).await.unwrap().get("state"), Some(&b"stop"[..]));
    for volume in 1..50 {
        scene.other.call(command(&format!("setvol {volume}"))).unwrap();
        assert_eq!(client.next_notification().await.unwrap(), Some(Subsystem::Mixer));
        let status = client.ring(command("status")).await.unwrap();
        assert_eq!(status.get("volume"), Some(volume.to_string().as_bytes()));
    }
    leave(client).await;
}

async fn answers_of_all_kinds(client: &mut impl Subject<Mpd>, _: &mut Scene) {
    let Err(Error::Refused(Ack { code, position, command: name, text, .. })) = client.call(command("play 9999")).await
    else {
        panic!("there is no such song")
    };
    assert_eq!((code, position, &name[..], &text[..]), (Ack::ARG, 0, &b"play"[..], &b"Bad song index"[..]));

    let list = |words: [&str; 3]| {
        let commands = words.map(|words| match command(words) {
            Request::Command(command) => command,
            _ => panic!("one command"),
        });
        Request::ListOk(commands.into())
    };
    let answer = client.call(list(["status", "ping", "stats"])).await.unwrap();
    let parts: Vec<Answer> = answer.parts().collect();
    assert_eq!(parts.len(), 3);
    assert!(parts[0].get("volume").is_some() && parts[1] == Answer::default() && parts[2].get("uptime").is_some());
    let Err(Error::Refused(ack)) = client.call(list(["status", "play 9999", "stats"])).await else {
        panic!("not refused")
    };
    assert!(ack.position == 1 && ack.before.parts().count() == 1);

    // Quoted and escaped.
    let odd = r#"a "quoted" \name"#;
    client.call(Command::new("save").arg(odd).into()).await.unwrap();
    let lists = client.call(command("listplaylists")).await.unwrap();
    assert_eq!(lists.get("playlist"), Some(odd.as_bytes()));

    client.call(command("binarylimit 1000000")).await.unwrap();
    let (picture, mut read) = (picture(), Vec::new());
    while read.len() < picture.len() {
        let part = client.call(command(&format!("albumart album/one.wav {}", read.len()))).await.unwrap();
        assert_eq!(part.get("size"), Some(picture.len().to_string().as_bytes()));
        read.extend_from_slice(part.binary().unwrap());
    }
    assert!(read == picture);
}

async fn refused(client: &mut impl Subject<Mpd>, scene: &mut Scene) {
    // The enter has no answer of its own: its refusal comes late.
    client.enter(vec!["bogus".into()]).await.unwrap();
    let error = client.next_notification().await.unwrap_err();
    assert!(matches!(&error, Error::Refused(ack) if ack.code == Ack::ARG), "{error}");
    assert_eq!(client.call(command("ping")).await.unwrap(), Answer::default());

    // In idle MPD would close the connection: it is not sent.
    client.enter(vec![]).await.unwrap();
    let rejected = client.start(command("status")).unwrap_err();
    assert_eq!(rejected.reason, Reason::NotAllowed(Mode::Notification));
    scene.other.call(command("random 1")).unwrap();
    assert_eq!(client.next_notification().await.unwrap(), Some(Subsystem::Options));
}

async fn with_a_password(client: &mut impl Subject<Mpd>, _: &mut Scene) {
    client.enter(vec![]).await.unwrap();
    let error = client.next_notification().await.unwrap_err();
    assert!(matches!(&error, Error::Refused(ack) if ack.code == Ack::PERMISSION), "{error}");
    let error = client.call(Command::password("wrong").into()).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(ack) if ack.code == Ack::PASSWORD), "{error}");
    client.call(Command::password("hunter2").into()).await.unwrap();
    client.enter(vec![]).await.unwrap();
    leave(client).await;
    assert!(client.call(command("status")).await.unwrap().get("volume").is_some());
}

async fn the_server_ends(client: &mut impl Subject<Mpd>, scene: &mut Scene) {
    client.enter(vec![]).await.unwrap();
    scene.server.stop();
    let error = client.next_notification().await.unwrap_err();
    assert!(matches!(error, Error::Ended(End::Closed)), "{error}");
}

async fn the_server_is_killed(client: &mut impl Subject<Mpd>, scene: &mut Scene) {
    client.enter(vec![]).await.unwrap();
    let id = client.start(command("noidle"));
    assert!(id.is_err());
    scene.server.kill();
    let error = client.next_notification().await.unwrap_err();
    assert!(matches!(error, Error::Ended(End::Closed)), "{error}");
}

const LOCKED: &str = "password \"hunter2@read,add,control,admin\"\ndefault_permissions \"\"";

macro_rules! on_each_runtime {
    ($($case:ident($settings:expr);)*) => {
        mod on_std {
            use super::*;

            $(#[test]
            fn $case() {
                let mut scene = scene($settings);
                let connect = sonnette_std::Connect::new().timeouts(timeouts());
                let mut client = connect.tcp(Mpd::new(), scene.server.address).unwrap();
                futures_lite::future::block_on(super::$case(&mut client, &mut scene));
            })*

            #[test]
            fn over_a_unix_socket() {
                let mut scene = scene("");
                let mut client = sonnette_std::Connect::new().timeouts(timeouts()).unix(Mpd::new(), socket(&scene)).unwrap();
                futures_lite::future::block_on(super::ringing(&mut client, &mut scene));
            }
        }
        on_each_runtime!(on_smol, sonnette_smol, async_io::block_on, $($case($settings);)*);
        on_each_runtime!(on_tokio, sonnette_tokio, on_one_thread, $($case($settings);)*);
    };
    ($name:ident, $client:ident, $block_on:path, $($case:ident($settings:expr);)*) => {
        mod $name {
            use super::*;
            use $client::Client;

            $(#[test]
            fn $case() {
                let mut scene = scene($settings);
                $block_on(async {
                    let connect = Connect::new().timeouts(timeouts());
                    let mut client = Client::connect_with(&connect, Mpd::new(), scene.server.address).await.unwrap();
                    super::$case(&mut *client, &mut scene).await;
                });
            })*

            #[test]
            fn over_a_unix_socket() {
                let mut scene = scene("");
                $block_on(async {
                    let connect = Connect::new().timeouts(timeouts());
                    let mut client = Client::connect_unix_with(&connect, Mpd::new(), socket(&scene)).await.unwrap();
                    super::ringing(&mut *client, &mut scene).await;
                });
            }
        }
    };
}

fn on_one_thread<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn socket(scene: &Scene) -> PathBuf {
    scene.server.socket()
}

on_each_runtime! {
    changes_are_told("");
    leaving_crosses_a_change("");
    ringing("");
    answers_of_all_kinds("");
    refused("");
    with_a_password(LOCKED);
    the_server_ends("");
    the_server_is_killed("");
}
