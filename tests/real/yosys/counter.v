module counter(input clk, input reset, input enable, output reg [7:0] count);
    always @(posedge clk)
        if (reset) count <= 0;
        else if (enable) count <= count + 1;
endmodule
