"""Static tables for small tensors: zstd dictionaries that consist of tables alone.

Made by benchmarks/static_tables.py, and part of the format (docs/wire.md).
"""

from __future__ import annotations

from base64 import b85decode

#: (packing, signed) -> mean magnitudes; up to the first of them goes the first table.
EDGES: dict[tuple[int, bool], tuple[float, float, float]] = {
    (1, False): (0.189, 0.396, 0.732),
    (1, True): (0.224, 0.358, 0.545),
    (2, False): (1.492, 2.071, 2.875),
    (2, True): (1.145, 1.744, 2.691),
}

#: (packing, signed) -> dictionaries, the first for the most zeros.
TABLES: dict[tuple[int, bool], tuple[bytes, bytes, bytes, bytes]] = {
    (1, False): (
        b85decode(
            "H>5D^2*qe5G7zvcNzwr@48xQmww^(-0#0z!o3KO9INMcKd1E7rGGJ#)oPMzDXd|L#g&>Wrv}C8_1"
            "4tki5KM>UVgLXHfJG=Zo>B&45JScg000000000000000000000087{v9z&FPJ&D!WJUx40000000"
            "031000C4000O80000000000000"
        ),
        b85decode(
            "H>5D^A9O4|I}os>Ng4w%DEJhtmx>sAz@S0|dJw+FI28zR0H*iV`F%oGTZ>1T5M~==roCr9EF})Cj"
            "=$&=Nw!P@vjR9A6b_6?R>J@Q1mFa+IGra-3>g3b000000000000000000000000)X{@9pgP}Yai;"
            "^IRVIYSwsGO<-00001000040000800000000000000"
        ),
        b85decode(
            "H>5D^YIeanK@gxrlr#pzhDGS`kPn5~kQKP-7`ab^3lpkk1&E#(fTW`Jb^fbb^anU6pa=Ogp<3X>T"
            "BGP!eqeQg-!{3oOaY?;KpYZ|N@umx000C4g|9eXXj%*z0ssI2000000000000000000000EDUxM1"
            "!$J91R6IjG`zG!<17_F-Zad0096100aO400;m8000000000000"
        ),
        b85decode(
            "H>5D^B9W3?Mi7WKCTR?y0DR{OAXpK6cm0!lUW-kD3IJCCl#0VZ4eFb33jpE*a@l=MR>cN+JcISM*"
            "nXj6R+H2fGvaC?$VT68Np=b&0x%d756j2Z;{X5z07Nvp+Xqs}7y<wQ0000000000000000000000"
            "1;AjKqVnL>fzyAc#>EV+t{(h-d%+0096100aO400;m8000000000000"
        ),
    ),
    (1, True): (
        b85decode(
            "H>5D^yRWVRH4vyJF*F7+GczkOGc%JaE8LwZKc8zsFcH_?EI*4qDcj!#P@hDmM<eDlE=ZPUeo50xM"
            "+p-FC=?J4Olro%0RRNR!pk(%bA|u_0000000000000000000000000R3<1TB%~u#sYD)*Wl<1kNh"
            "cXZ0{{R30RR911ONa42mk;80000000000"
        ),
        b85decode(
            "H>5D^EhbMCJrJNZF*F9lFq|xdbZ^Ene2<tKlig4QAPZI|i}<i&6hqD2j&|F>BaCv2I=H~5qlN`5v"
            "cs%~gaC4wSaFj85DW?lNat4U0RR95paI~aBLn~d0000000000000000000003ZMW0Q8_i0s@0V0s"
            ";a;0s;bp!2tt9!$ZVI2*}Rbi~s-t0RR911ONa42mk;80000000000"
        ),
        b85decode(
            "H>5D^I+po8Q4oMer5OYKPQT+pRpu~9eTg2hQC~T#+(ryWdTp%H-{z>A3(V2fW%ifQ*cyFbSJos+l"
            "M%g@?!?B?lv2<VJrM*wZX*UErlB?ZqePY4h%n=FI2;ZRhlAqV&N=7qgkZ!O2LuEJ1Ox;G1Ox;G1O"
            "x;G1Ox(sKp+qZ1OkCTAP@)y0)Ze1f>a1X2q8YSAt50lAt50lAt50lAt50lAt50lK_Vd`!KSa3Bq^"
            "no4*>uG00aO400;m8000000000000"
        ),
        b85decode(
            "H>5D^Lx0U>SP(!4lR8w^G(=_PueYve&a`QpV)vbdcZXkgoKlGd=`5H&3=^hi00@xjXKa7guFkaSp"
            "k<sr43lKbBvJ{c0W(QRj9O!F<gfR%0-M5sS(k(C!W8dE2y<|7I2;ZK2a4%B=bXC(ga82o0s;a80s"
            ";a80s;a80s;a80)hhq0s;a80s;a80s;a80)i!iAP9mW2to)UJ|rO_At50lAt50lAt50lAt50lAt5"
            "0_B0*w<E}A4MrIZf=000040000800000000000000"
        ),
    ),
    (2, False): (
        b85decode(
            "H>5D^8d^dfJP@!mO&S9*$S@4B28lD|65J6G{Q$ErkD>`mQTzv3WBf0c&A@NF(=__GRu?AXH%mxRN"
            "27nUmh3HM3iALU5Dp9pXLZB@00f}IPBf4y0{{R30000000000000000000000004#DyaR<HCYsBI"
            "4mtFcgc)gTaVA)bm^$00031000C4000O80000000000000"
        ),
        b85decode(
            "H>5D^AEk$3L=ccfoHPai>;NDGFkAs*0Fi+e7|9TPt}LWijRe6@YTn2{^1p8PF9P{T{}_+#;^kX}S"
            "$}ukBCI9pJ`h_YgzUX#3NryP6cUR_MkUk%00baI$+(qc1ONa4000000000000000000000002A<p"
            "yLUgTsR2@pv>A3q``gP!vabmIZGB00031000C4000O80000000000000"
        ),
        b85decode(
            "H>5D^@U<x`N)V7%lh#1K%~}YgLQDl23s56qj0C`YBY^(MkMR{c_neLNU%h7|{l2_AFxuARY@~12H"
            "dZL!%$m0y7;ViGk(Llb$liNPDP;=70XP&849Nz?!vO#U0K`AI)r5=z0000000000000000000000"
            "00008~bZ<imsGGJ!lCi$x+qmL)-yL?P5n00001000040000800000000000000"
        ),
        b85decode(
            "H>5D^J#H$0P7r9RlGdnVDBdvSYD3TrmQ6j3(ZSi*J`9;iSIb@hOLy~nOYLT~KfwFw{Se+l???O(Y"
            "U>}gZ|LX_seemJ6-w*Yq-=x`LiXN!ODR($0U!_xiid{9!~p;Vz=F-PQd0&100000000000000000"
            "00m0{{R3001-tq{4y%B4Xmf!GVE+fkE+bL>v?f=Tec<1^@s7000040000800000000000000"
        ),
    ),
    (2, True): (
        b85decode(
            "H>5D^aNax_HW0v*Bpov_12fSWullwL;rvE6A&h9rmXa_P{kCP2yQ39ZvgIa(<2SNN(C6DG_{C%~i"
            "4kt&03ZMk2!|)-<N*KxB*4Pr5F!YIAP9mW2!bF8f<Oo%gb+dqA%qYjGZB#_Nzws?K!Bj2pg^F2pr"
            "F8jfS`bYz#yTZpdcY3#7WVKmn0nl000040000800000000000000"
        ),
        b85decode(
            "H>5D^yH4X<MG&a8O$RVDGs#V%K+r)nGzJdaOAjj0k}ca0tJ=0@l5M{jEs-*%&_h0!Y?)-+&hgup?"
            "V{26z4Rc=fp0~CwPRgX4FPj-a5x+e2Zl$*J?EUe19ad(h=YTJgM)*EgM)*EgM)*EgM$NygM)*EgM"
            ")*EgM)*EgM))m=QxhzIOm*m?hce7K|(@8LPA19LPA19LPA19LPA19LPCN@ga#E|l2S_f0RR911ON"
            "a42mk;80000000000"
        ),
        b85decode(
            "H>5D^Q@^nhR}ffcRS#^!DZ>8M-XCmDI{eu1oN(-P^k0qeJZ4})mV76=<Dug-zhuMVtRcb(Ny&C~5"
            "N0474rk%U44iJUf=$dcGCf!>ykeZgSW<@{o7>M1IzgE;)6mdpG#ZUY1Ep!2rnUB@K!JjSf`WpAf`"
            "WpAf`WpAf`WpAf`WpAf`WpAf`US!P$(1%g+ifFC={egQIt~p<iLT0gM)*EgM)*EgM)*EgM)*EgM-"
            "82a5!2U$8j9Txd#CN000C4000O80000000000000"
        ),
        b85decode(
            "H>5D^iTQpfRS+NtrETf^2+l%tgDxVlU+F(F*k8JK|5N(Et@=X&U@nR~UIAe|K`0u6i)J*rIRy;<_"
            "PZ4%^cb%Kb4a%XLR&$I2qu5&+QpGVUC!Z<J<11K=K_O(fIuJ+2n6EDi4a1F4}<^#0s;a80s;a80s"
            ";a80s;a80s;a80s;a80s;a80s;a80s_M013?f3K@fxxLVTn^fr5g9f`WpAf`WpAf`WpAf`WpAf`W"
            "pA!UWfvq9~>G0RaF200aO400;m8000000000000"
        ),
    ),
}
