// A static HTTP server and client of Go's standard library, to be run under `toe run`.
package main

import (
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func get(url string) error {
	answer, err := http.Get(url)
	if err != nil {
		return err
	}
	sum := md5.New()
	n, err := io.Copy(sum, answer.Body)
	fmt.Printf("%d bytes %x\n", n, sum.Sum(nil))
	return err
}

func serve(address string) error {
	server := &http.Server{Addr: address}
	http.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.Host)
	})
	http.HandleFunc("/f", func(w http.ResponseWriter, r *http.Request) {
		bytes := make([]byte, 4<<20)
		for i := range bytes {
			bytes[i] = byte(i * 7)
		}
		w.Write(bytes)
	})
	http.HandleFunc("/quit", func(w http.ResponseWriter, r *http.Request) {
		go func() {
			time.Sleep(100 * time.Millisecond)
			server.Shutdown(context.Background())
		}()
	})
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func main() {
	work := get
	if os.Args[1] == "serve" {
		work = serve
	}
	if err := work(os.Args[2]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
