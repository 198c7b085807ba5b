// The MongoDB stand-in: a server that speaks MongoDB's protocol and keeps its documents in SQLite, for tests on
// machines that have no mongod.
//
// FerretDB's own command panics when it is installed as a module, so this command runs FerretDB's embeddable package
// (with one corrected line: see `build`). The stand-in has limits: every read scans a collection, except a read of one
// `_id`; sessions and transactions fail; and of all measurements on it only the rate of inserts tells anything about
// MongoDB.
// The stand-in is not part of the product, and is linked with no part of it.
//
//	dovetail-test-mongodb serve ADDRESS DATA_FOLDER   runs until SIGTERM or SIGINT; logs warnings to stderr
//	dovetail-test-mongodb probe ADDRESS               asks `hello`; exit 0 if a writable server answers within 5 seconds
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"
	"github.com/FerretDB/wire"
	"github.com/FerretDB/wire/wireclient"
)

const usage = "usage: dovetail-test-mongodb serve ADDRESS DATA_FOLDER | probe ADDRESS"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dovetail-test-mongodb:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	// At the debug level FerretDB would log every document.
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	switch {
	case len(args) == 3 && args[0] == "serve":
		return serve(args[1], args[2], logger)
	case len(args) == 2 && args[0] == "probe":
		return probe(args[1], logger)
	default:
		return errors.New(usage)
	}
}

// serve answers on address until it gets a signal to end. It makes a missing folder: FerretDB fails without it.
func serve(address, folder string, logger *slog.Logger) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("the address must be HOST:PORT: %w", err)
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	// The path is passed as a URL, so that a blank or a question mark in it does not become a parameter of SQLite.
	// FerretDB needs a slash at the folder's end.
	store := url.URL{Scheme: "file", Path: folder + "/"}
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: address},
		Logger:    logger,
		Handler:   "sqlite",
		SQLiteURL: store.String(),
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return server.Run(ctx)
}

// probe checks that a writable server answers at address.
func probe(address string, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	target := url.URL{Scheme: "mongodb", Host: address, Path: "/"}
	conn, err := wireclient.Connect(ctx, target.String(), logger)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, body, err := conn.Request(ctx, wire.MustOpMsg("hello", int32(1), "$db", "admin"))
	if err != nil {
		return err
	}
	message, ok := body.(*wire.OpMsg)
	if !ok {
		return fmt.Errorf("%s answers `hello` with another kind of message: %T", address, body)
	}
	raw, err := message.RawDocument()
	if err != nil {
		return err
	}
	answer, err := raw.Decode()
	if err != nil {
		return err
	}
	status, writable := answer.Get("ok"), answer.Get("isWritablePrimary")
	if status != 1.0 || writable != true {
		return fmt.Errorf("%s is not a writable server: ok %v, isWritablePrimary %v", address, status, writable)
	}
	return nil
}
