//! Disk servers of another time or size, as a client meets them: played by doubles.

use std::fs;

use ploop_snapshotter::link::{Seen, Servers};
use ploop_snapshotter::proto::v1;
use ploop_snapshotter::proto::v1::disks_server::{Disks, DisksServer};
use tonic::{Request, Response, Status};

use crate::support::ploopd::Ploopd;

/// A server from another time: it greets, and lists what it is told to.
#[derive(Clone)]
struct Stranger {
    hello: v1::HelloReply,
    disks: Vec<v1::Disk>,
}

#[tonic::async_trait]
impl Disks for Stranger {
    async fn hello(
        &self,
        _: Request<v1::HelloRequest>,
    ) -> Result<Response<v1::HelloReply>, Status> {
        Ok(Response::new(self.hello.clone()))
    }
    async fn attach(&self, _: Request<v1::AttachRequest>) -> Result<Response<v1::Disk>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn detach(
        &self,
        _: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn grow(&self, _: Request<v1::GrowRequest>) -> Result<Response<v1::Disk>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn sync(&self, _: Request<v1::SyncRequest>) -> Result<Response<v1::SyncReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListReply>, Status> {
        let disks = self.disks.clone();
        Ok(Response::new(v1::ListReply {
            disks,
            ..v1::ListReply::default()
        }))
    }
    async fn stats(
        &self,
        _: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn drain(
        &self,
        _: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// What a client says to a server that greets like this.
fn meeting(hello: v1::HelloReply) -> Result<Vec<Seen>, String> {
    let disks = Vec::new();
    meeting_with(Stranger { hello, disks })
}

fn meeting_with(stranger: Stranger) -> Result<Vec<Seen>, String> {
    let server = Ploopd::folders();
    fs::create_dir_all(server.seat().folder()).unwrap();
    fs::write(server.seat().registry(), "{}").unwrap();
    server.block(async {
        let listener = tokio::net::UnixListener::bind(server.socket()).unwrap();
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let door = tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(DisksServer::new(stranger))
                .serve_with_incoming(incoming),
        );
        let answer = Servers::start(server.options(false)).await;
        door.abort();
        answer
            .map(|servers| servers.seen())
            .map_err(|error| error.to_string())
    })
}

fn greeting(protocol: u32) -> v1::HelloReply {
    v1::HelloReply {
        protocol,
        version: "9.9".to_owned(),
        pid: std::process::id(),
        ..v1::HelloReply::default()
    }
}

#[test]
fn a_server_of_another_protocol_is_refused_with_both_numbers() {
    for other in [0, 2, 99] {
        let words = meeting(greeting(other)).unwrap_err();
        for part in [
            &format!("speaks protocol {other},"),
            "speaks 1",
            "version 9.9",
            "stop that ploopd",
        ] {
            assert!(words.contains(part), "{words}");
        }
    }
}

/// Neither the first one that was ever released nor one of next year is a stranger.
#[test]
fn a_server_of_another_revision_is_adopted() {
    let first = greeting(1);
    let next = v1::HelloReply {
        revision: 99,
        build: "a".to_owned(),
        server: "1-1".to_owned(),
        ..greeting(1)
    };
    for hello in [first, next] {
        let revision = hello.revision;
        let seen = meeting(hello).unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].hello.revision, revision);
        assert!(seen[0].alive);
    }
}

/// A node with tens of thousands of deltas could not be started again: the answer was longer than a client would hear.
#[test]
fn a_server_of_very_many_deltas_is_adopted() {
    let delta = v1::Delta {
        path: format!("/{}", "x".repeat(4000)),
        format: v1::Format::Ploop.into(),
        seal: None,
    };
    let disk = |number| v1::Disk {
        id: format!("s{number}"),
        device: "/dev/null".to_owned(),
        deltas: vec![delta.clone(); 128],
        ..v1::Disk::default()
    };
    let disks: Vec<_> = (0..11).map(disk).collect();
    let bytes: usize = disks
        .iter()
        .flat_map(|disk| &disk.deltas)
        .map(|it| it.path.len())
        .sum();
    assert!(bytes > 5 << 20);
    let hello = greeting(1);
    assert_eq!(meeting_with(Stranger { hello, disks }).unwrap().len(), 1);
}
