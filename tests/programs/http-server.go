// An HTTP server on the socket that the runtime listens at, which is the first descriptor after the standard streams.
//
//	GET  /hello?name=NAME   hello, NAME
//	POST /echo              the body
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
)

func main() {
	log.SetFlags(0)
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/hello", func(answer http.ResponseWriter, request *http.Request) {
		fmt.Fprintf(answer, "hello, %s\n", request.FormValue("name"))
	})
	http.HandleFunc("/echo", func(answer http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			log.Print(err)
		}
		answer.Header().Set("Content-Length", strconv.Itoa(len(body)))
		answer.Write(body)
	})
	fmt.Println("serving")
	log.Fatal(http.Serve(listener, nil))
}
