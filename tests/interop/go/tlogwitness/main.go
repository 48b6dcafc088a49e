// Command tlogwitness is a C2SP tlog-witness on golang.org/x/mod/sumdb, which shares no code with
// ours. Its state is in memory: it is for tests of logs, not for the world.
//
//	tlogwitness -log VKEY -name NAME -seed HEX [-listen ADDRESS]
//
// It prints its vkey and its address, one a line.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const algorithm = 0x04

// A cosigner implements note.Signer for C2SP tlog-cosignature.
type cosigner struct {
	name string
	key  ed25519.PrivateKey
}

func (c *cosigner) public() []byte {
	return append([]byte{algorithm}, c.key.Public().(ed25519.PublicKey)...)
}

func (c *cosigner) Name() string { return c.name }

func (c *cosigner) KeyHash() uint32 {
	sum := sha256.Sum256(append([]byte(c.name+"\n"), c.public()...))
	return binary.BigEndian.Uint32(sum[:4])
}

func (c *cosigner) Sign(text []byte) ([]byte, error) {
	now := uint64(time.Now().Unix())
	message := append([]byte(fmt.Sprintf("cosignature/v1\ntime %d\n", now)), text...)
	signature := make([]byte, 8, 8+ed25519.SignatureSize)
	binary.BigEndian.PutUint64(signature, now)
	return append(signature, ed25519.Sign(c.key, message)...), nil
}

func (c *cosigner) vkey() string {
	return fmt.Sprintf("%s+%08x+%s", c.name, c.KeyHash(), base64.StdEncoding.EncodeToString(c.public()))
}

type witness struct {
	verifier note.Verifier
	signer   *cosigner
	lock     sync.Mutex
	tree     tlog.Tree
	shown    []byte
}

func parseRequest(body []byte) (int64, tlog.TreeProof, []byte, error) {
	head, checkpoint, found := strings.Cut(string(body), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || !strings.HasPrefix(lines[0], "old ") || len(lines) > 64 {
		return 0, nil, nil, errors.New("not a request")
	}
	word := strings.TrimPrefix(lines[0], "old ")
	old, err := strconv.ParseInt(word, 10, 64)
	if err != nil || old < 0 || strconv.FormatInt(old, 10) != word {
		return 0, nil, nil, errors.New("not an old size")
	}
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return 0, nil, nil, err
		}
		proof = append(proof, hash)
	}
	return old, proof, []byte(checkpoint), nil
}

func (w *witness) add(response http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(io.LimitReader(request.Body, 64<<10))
	if err != nil || request.Method != "POST" {
		http.Error(response, "not a request", http.StatusBadRequest)
		return
	}
	old, proof, checkpoint, err := parseRequest(body)
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	if origin, _, _ := strings.Cut(string(checkpoint), "\n"); origin != w.verifier.Name() {
		http.Error(response, "another log", http.StatusNotFound)
		return
	}
	opened, err := note.Open(checkpoint, note.VerifierList(w.verifier))
	if err != nil {
		http.Error(response, err.Error(), http.StatusForbidden)
		return
	}
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + strings.SplitN(opened.Text, "\n", 2)[1]))
	if err != nil || old > tree.N {
		http.Error(response, "not a checkpoint", http.StatusBadRequest)
		return
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	if old != w.tree.N {
		response.Header().Set("Content-Type", "text/x.tlog.size")
		response.WriteHeader(http.StatusConflict)
		fmt.Fprintf(response, "%d\n", w.tree.N)
		return
	}
	if old == 0 && len(proof) > 0 {
		http.Error(response, "a proof from nothing", http.StatusUnprocessableEntity)
		return
	}
	if old > 0 {
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, w.tree.N, w.tree.Hash); err != nil {
			http.Error(response, err.Error(), http.StatusUnprocessableEntity)
			return
		}
	}
	signed, err := note.Sign(&note.Note{Text: opened.Text, Sigs: opened.Sigs}, w.signer)
	if err != nil {
		http.Error(response, err.Error(), http.StatusInternalServerError)
		return
	}
	w.tree, w.shown = tree, signed
	fmt.Fprintf(response, "%s\n", lastLine(signed))
}

func lastLine(signed []byte) string {
	lines := strings.Split(strings.TrimSuffix(string(signed), "\n"), "\n")
	return lines[len(lines)-1]
}

func (w *witness) show(response http.ResponseWriter, request *http.Request) {
	w.lock.Lock()
	defer w.lock.Unlock()
	sum := sha256.Sum256([]byte(w.verifier.Name()))
	if request.URL.Path != "/"+hex.EncodeToString(sum[:])+"/checkpoint" || w.shown == nil {
		http.NotFound(response, request)
		return
	}
	response.Write(w.shown)
}

func main() {
	vkey := flag.String("log", "", "verifier key of the log")
	name := flag.String("name", "", "name of this witness")
	seed := flag.String("seed", "", "its key's seed, 64 hex digits")
	address := flag.String("listen", "127.0.0.1:0", "address")
	flag.Parse()
	verifier, err := note.NewVerifier(*vkey)
	if err != nil {
		log.Fatal(err)
	}
	raw, err := hex.DecodeString(*seed)
	if err != nil || len(raw) != ed25519.SeedSize {
		log.Fatal("not a seed")
	}
	w := &witness{verifier: verifier, signer: &cosigner{*name, ed25519.NewKeyFromSeed(raw)}}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\nhttp://%s\n", w.signer.vkey(), listener.Addr())
	http.HandleFunc("/add-checkpoint", w.add)
	http.HandleFunc("/", w.show)
	log.Fatal(http.Serve(listener, nil))
}
